"""What the admin commands refuse before they ask a server."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.errors import ConfigError


@pytest.mark.parametrize("weight", ["a=nan", "a=inf", "a=-1", "a=many", "=3", "a"])
def test_a_weight_that_is_none_is_told_as_such_and_not_as_a_missing_server(weight: str) -> None:
    result = CliRunner().invoke(app, ["traffic", "set", "e", weight])

    assert isinstance(result.exception, ConfigError)
    assert str(result.exception.message).startswith(f"{weight!r} is no weight; allowed: ARM=NUMBER")


@pytest.mark.parametrize("group", ["experiment", "experiments"])
@pytest.mark.parametrize("command", ["promote", "rollback", "stop", "show", "list"])
def test_every_command_has_an_example_and_json(group: str, command: str) -> None:
    said = CliRunner().invoke(app, [group, command, "--help"], env={"COLUMNS": "120"}).output

    assert f"Example: squadron experiment {command}" in said
    assert "--json" in said


def test_an_arm_has_one_weight() -> None:
    result = CliRunner().invoke(app, ["traffic", "set", "e", "a=1", "b=2", "a=3"])

    assert isinstance(result.exception, ConfigError)
    assert "'a=1 b=2 a=3'" in result.exception.message
