"""What was set at run time outlives the cluster, and ends when its section of the YAML changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.measured_models import experiment, serve_file, write_store
from tests.e2e.running import running

pytestmark = pytest.mark.e2e


def _arms(url: str, name: str) -> list[tuple[str, float]]:
    found: Any = httpx.get(f"{url}/admin/v1/experiments/{name}", timeout=60).json()
    return [(arm["name"], arm["weight"]) for arm in found["arms"]]


def test_weights_outlive_the_cluster_until_their_section_changes(tmp_path: Path) -> None:
    write_store(tmp_path / "store")
    copies = tmp_path / "run"
    copies.mkdir()
    file = tmp_path / "all.yaml"
    serve_file(
        tmp_path / "store", file, {"kept": experiment("equal"), "changed": experiment("equal")}
    )
    with running(file, copies, store=tmp_path / "store") as first:
        for name in ("kept", "changed"):
            answer = httpx.put(
                f"{first.http}/admin/v1/experiments/{name}/weights",
                json={"control": 3, "equal": 4},
                timeout=60,
            )
            assert answer.status_code == 200, answer.text

    serve_file(
        tmp_path / "store", file, {"kept": experiment("equal"), "changed": experiment("equal", 20)}
    )
    with running(file, copies, store=tmp_path / "store") as second:
        assert _arms(second.http, "kept") == [("control", 3), ("equal", 4)]
        assert _arms(second.http, "changed") == [("control", 80), ("equal", 20)]
