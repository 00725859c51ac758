from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import typer.main
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


def test_no_default_is_lost_from_a_help_text() -> None:
    """Rich takes `[default: x]` for a mark-up of its own and prints nothing."""

    def walk(command: click.Command, name: str) -> Iterator[str]:
        for parameter in command.params:
            text = getattr(parameter, "help", None) or ""
            if re.search(r"(?<!\\)\[default", text):
                yield f"{name} {parameter.name}: {text}"
        if isinstance(command, click.Group):
            for each in command.list_commands(click.Context(command)):
                found = command.get_command(click.Context(command), each)
                assert found is not None
                yield from walk(found, f"{name} {each}")

    assert list(walk(typer.main.get_command(app), "squadron")) == []
