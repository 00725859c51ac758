"""What was set at run time outlives the cluster, and ends when its section of the YAML changes.

The last file of its folder: it stops the server of all of them.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.measured_models import experiment, serve_file
from tests.e2e.running import STOP_PATIENCE_S, Running, running

pytestmark = pytest.mark.e2e


def _arms(url: str, name: str) -> list[tuple[str, float]]:
    found: Any = httpx.get(f"{url}/admin/v1/experiments/{name}", timeout=60).json()
    return [(arm["name"], arm["weight"]) for arm in found["arms"]]


def test_weights_outlive_the_cluster_until_their_section_changes(
    served: Running, folder: Path
) -> None:
    for name in ("kept", "changed"):
        answer = httpx.put(
            f"{served.http}/admin/v1/experiments/{name}/weights",
            json={"control": 3, "equal": 4},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
    served.process.send_signal(signal.SIGINT)
    served.process.wait(STOP_PATIENCE_S)

    experiments = {"kept": experiment("equal"), "changed": experiment("equal", 20)}
    serve_file(folder / "store", folder / "again.yaml", experiments)
    with running(folder / "again.yaml", folder / "run", store=folder / "store") as second:
        assert _arms(second.http, "kept") == [("control", 3), ("equal", 4)]
        assert _arms(second.http, "changed") == [("control", 80), ("equal", 20)]
