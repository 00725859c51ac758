from __future__ import annotations

import tomllib
from pathlib import Path

from typer.testing import CliRunner

from cluster.cli.main import app

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_the_program_says_which_version_it_is() -> None:
    said = CliRunner().invoke(app, ["--version"])

    version = tomllib.loads(PROJECT.read_text())["project"]["version"]
    assert (said.exit_code, said.output) == (0, f"squadron {version}\n")


def test_without_a_command_it_shows_what_there_is() -> None:
    said = CliRunner().invoke(app, [])

    assert "squadron serve my_model.onnx" in said.output
    assert "--version" in said.output
