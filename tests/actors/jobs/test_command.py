"""`squadron jobs` against a door with jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cluster.cli.main import app
from tests.actors.client.test_remote import apart
from tests.actors.jobs.places import jobs_door


@pytest.mark.parametrize("command", ["list", "show", "cancel", "profile", "optimize"])
def test_every_command_has_an_example_and_json(command: str) -> None:
    said = CliRunner().invoke(app, ["jobs", command, "--help"], env={"COLUMNS": "120"}).output

    assert f"Example: squadron jobs {command}" in said
    assert "--json" in said


async def test_the_commands_do_what_the_sdk_does(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "rows.npz", x=rows)

    async with jobs_door(tmp_path) as place:

        def run(*arguments: str) -> Result:
            return CliRunner().invoke(app, ["jobs", *arguments, "--url", place.url])

        def told(*arguments: str) -> Any:
            result = run(*arguments, "--json")
            assert result.exit_code == 0, result.output
            return json.loads(result.stdout)

        def work() -> None:
            html = tmp_path / "page.html"
            profiled = told("profile", "mlp", "--calls", "2", "--html", str(html))
            assert profiled["layer_timings"]
            assert "<svg" in html.read_text()
            found = told(
                "optimize", "mlp", "--level", "basic", "--rounds", "2", "--add", "mlp-fast",
                "--data", str(tmp_path / "data"), "--html", str(html),
            )  # fmt: skip
            assert found["data"] == "8 rows given"
            assert found["added"] == {"name": "mlp-fast", "version": "1"}
            assert place.store.versions("mlp-fast")
            jobs = told("list")
            assert [(each["kind"], each["state"]) for each in jobs] == [
                ("profile", "succeeded"),
                ("optimize", "succeeded"),
            ]
            shown = run("show", jobs[0]["id"])
            assert "profile 2 calls" in shown.output
            assert told("cancel", jobs[0]["id"])["state"] == "succeeded"
            refused = run("optimize", "mlp", "--level", "fast")
            assert refused.exit_code == 2
            assert "'level'" in refused.output

        await apart(work)
