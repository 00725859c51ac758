from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cluster.cli.own_door import OwnDoor
from cluster.cli.serve import (
    example_of,
    keep_token_private,
    refusal_in,
    serve,
    without_room,
)
from cluster.config.serve_file import read_serve_file
from cluster.engines.device import may_have_gpu
from cluster.errors import ConfigError

app = typer.Typer()
app.command()(serve)


@pytest.mark.skipif(may_have_gpu(), reason="this machine may have a GPU")
def test_a_gpu_that_is_not_there_is_told_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    file = tmp_path / "gpu.yaml"
    dev = (root / "serve_configs" / "dev.yaml").read_text()
    file.write_text(dev.replace("engine: fake", "engine: fake\n          device: cuda"))
    result = CliRunner().invoke(app, [str(file)])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.message.startswith(f"{file}: variants.echo: engine fake cannot use")
    assert "device 'cuda' on this machine" in result.exception.message


def test_who_waits_for_room_is_found_in_serves_log() -> None:
    line = (
        "\x1b[36m(ServeController pid=7)\x1b[0m WARNING 2026-11-22 01:44:12,927 controller 7 -- "
        "Deployment '{}' in application 'squadron' has 1 replicas that have taken more than 30s to "
        "be {}. This may be due to waiting for the cluster to auto-scale\n"
    )
    starts_slowly = line.format("variant-slow", "initialized")
    log = starts_slowly + line.format("gateway", "scheduled") + line.format("gateway", "scheduled")

    assert without_room(log) == ["gateway"]
    assert without_room(starts_slowly) == []


def test_why_a_configuration_cannot_be_served_is_found_in_rays_log() -> None:
    said = "a.yaml: variants.m: tensor degree 2 does not divide the 9 attention heads"
    before = "cluster.errors.ConfigError: said by a replica that goes on\n"
    failed = (
        "\x1b[33m(raylet)\x1b[0m Task build_serve_application failed. There are 3 retries left, "
        'so the task will be retried. Error: User exception:\n  File "actors/app.py", line 59, in '
        f"build\n    raise naming(error, file) from None\ncluster.errors.ConfigError: {said}\n\n"
        "System error:\nIntentionalSystemExit: Worker exits with an exit code 0.\n"
    )

    assert refusal_in(before) == ""
    # While the line is still being written.
    assert refusal_in(before + failed[: failed.index(" does not")]) == ""
    assert refusal_in(before + failed) == said


class Door(OwnDoor):
    """A server's descriptions of `assistant`, which generates, and `embedder`, which does not."""

    def is_decoupled(self, model: str) -> bool:
        return model == "assistant"

    def is_listed(self, model: str) -> bool:
        return True

    def inputs(self, model: str) -> list[dict[str, Any]]:
        return [{"name": "text", "datatype": "BYTES", "shape": [-1]}]


@pytest.mark.parametrize(
    ("ready", "path", "says"),
    [
        ("assistant", "/v1/completions", '"model": "assistant", "prompt": '),
        ("text-embedder", "/v2/models/text-embedder/infer", '"name": "text"'),
    ],
)
def test_the_call_to_try_is_one_that_a_ready_model_answers(
    root: Path, ready: str, path: str, says: str
) -> None:
    serve_file, config = read_serve_file(root / "serve_configs" / "llm.yaml")
    door = Door(serve_file, config)
    names = ("assistant", "text-embedder")
    index = [{"name": n, "state": "READY" if n == ready else "UNAVAILABLE"} for n in names]

    said = example_of(door, config, index)

    door.close()
    assert said.endswith(f" http://127.0.0.1:8000{path}")
    assert says in said


def test_nobody_else_reads_ray_s_token(tmp_path: Path) -> None:
    folder = tmp_path / ".ray"
    keep_token_private(folder)
    made = folder.stat().st_mode & 0o777
    folder.chmod(0o755)
    token = folder / "auth_token"
    token.write_text("secret")
    token.chmod(0o644)
    keep_token_private(folder)
    token_mode = token.stat().st_mode & 0o777
    keep_token_private(tmp_path / "auth_token/not/there")

    assert (made, token_mode) == (0o700, 0o600)
    assert token.read_text() == "secret"
