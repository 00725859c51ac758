from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
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

    walked = []

    def walk(command: Any, name: str) -> Iterator[str]:
        walked.append(name)
        for parameter in command.params:
            text = getattr(parameter, "help", None) or ""
            if re.search(r"(?<!\\)\[default", text):
                yield f"{name} {parameter.name}: {text}"
        # Typer has a click of its own, whose groups are none of click's.
        for each in command.list_commands(None) if hasattr(command, "list_commands") else ():
            yield from walk(command.get_command(None, each), f"{name} {each}")

    assert list(walk(typer.main.get_command(app), "squadron")) == []
    assert {"squadron serve", "squadron keys create", "squadron k8s check"} <= set(walked)


CODE = """
import sys
from typer.testing import CliRunner
from cluster.cli.main import app
said = CliRunner().invoke(app, sys.argv[1:])
assert said.exit_code == 0, said.output
print(*sys.modules)
"""
HEAVY = {"numpy", "ml_dtypes", "jsonschema", "torch", "onnx", "ray"}


@pytest.mark.parametrize(
    "words", [("--version",), ("keys", "create", "--help"), ("status", "--help")]
)
def test_a_command_waits_for_nothing_that_only_others_need(words: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", CODE, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert HEAVY & set(done.stdout.split()) == set()


def test_a_misspelt_command_is_told_which_one_is_near() -> None:
    said = CliRunner().invoke(app, ["optmize"])

    assert said.exit_code == 2
    assert "Did you mean 'optimize'?" in " ".join(said.output.split())
