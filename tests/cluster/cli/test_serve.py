from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cluster.cli.serve import serve
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
