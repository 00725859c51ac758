"""What the admin commands refuse before they ask a server."""

from __future__ import annotations

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cluster.cli.held import showing
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


@pytest.mark.parametrize("as_json", [True, False])
def test_who_watches_sees_a_server_go_and_come_back(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(showing, "WATCH_S", 0.0)
    monkeypatch.setattr(showing, "console", Console(force_terminal=False))
    answers = iter(["first", ConfigError("the controller is [away]"), "second", KeyboardInterrupt])

    def found() -> str:
        answer = next(answers)
        if not isinstance(answer, str):
            raise answer
        return answer

    showing.show(found, str, as_json=as_json, watch=True)

    said, told = capsys.readouterr()
    if as_json:
        assert (said, told) == ('"first"\n"second"\n', "the controller is [away]\n")
    else:
        assert "second" in said
        assert "away" not in said  # it has come back


def test_a_server_that_is_not_there_from_the_beginning_ends_the_watching() -> None:
    def found() -> str:
        raise ConfigError("no answer")

    with pytest.raises(ConfigError, match="no answer"):
        showing.show(found, str, as_json=True, watch=True)
