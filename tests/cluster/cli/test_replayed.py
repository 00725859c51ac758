"""`squadron explain --replay`: a log's decisions made again by the code of now."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.control import reconcile
from cluster.control.autoscaling.look import record
from cluster.control.reconcile import DeploymentSeen, Snapshot, VariantSeen
from cluster.errors import ConfigError
from tests.cluster.control.autoscaling.test_look import fleet, looks

LOOK = next(
    look for look in looks(fleet(), seed=1) if any(each.is_change for each in look.decisions)
)
SNAPSHOT = Snapshot(
    variants={
        "a": VariantSeen(
            state="LOADING",
            reason="starts",
            num_replicas=1,
            deployment=DeploymentSeen(status="HEALTHY", num_running=1, num_starting=0),
        )
    }
)
PASS = reconcile.record(SNAPSHOT, reconcile.reconcile(SNAPSHOT))
TEXT = "2026-11-22 11:00:00,000 INFO squadron.autoscaling: "


def replayed(folder: Path, *lines: str, words: tuple[str, ...] = ()) -> tuple[int, Any]:
    file = folder / "worker.err"
    file.write_text("".join(f"{line}\n" for line in lines))
    result = CliRunner().invoke(app, ["explain", *words, "--replay", str(file), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def test_lines_of_text_and_of_json_are_decided_again(tmp_path: Path) -> None:
    as_json = json.dumps({"level": "INFO", "message": f"pass {PASS}", "role": "controller"})

    code, found = replayed(
        tmp_path, ":actor_name:Autoscaler", f"{TEXT}look {record(LOOK)}", "", as_json
    )

    changes = [each for each in LOOK.decisions if each.is_change]
    assert code == 0
    assert [(each["line"], each["kind"], each["subject"]) for each in found] == [
        *((2, "autoscaling", each.variant) for each in changes),
        (4, "set_state", "a"),
    ]
    assert all(each["is_same"] for each in found)
    assert changes[0].reason in found[0]["reason"]


def test_what_is_decided_otherwise_now_is_told_and_the_command_fails(tmp_path: Path) -> None:
    first = replace(LOOK.decisions[0], num_replicas=77)
    other = replace(LOOK, decisions=(first, *LOOK.decisions[1:]))

    code, found = replayed(
        tmp_path, f"look {record(other)}", f"pass {PASS}", words=(first.variant,)
    )

    told = [(each["subject"], each["is_same"]) for each in found if not each["is_same"]]
    assert (code, told) == (1, [(first.variant, False)])
    assert LOOK.decisions[0].reason in found[0]["now"]


def test_an_action_that_the_log_does_not_have_is_told(tmp_path: Path) -> None:
    code, found = replayed(tmp_path, f"pass {reconcile.record(SNAPSHOT, ())}")

    assert (code, found[0]["is_same"], found[0]["subject"]) == (1, False, "a")


def test_a_log_without_decisions_is_said_to_have_none(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("nothing\n{broken\n")

    result = CliRunner().invoke(app, ["explain", "--replay", str(file)])

    assert (result.exit_code, result.stdout.strip()) == (0, "no decision stands in this log")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"look {record(LOOK)[:-20]}", "line 1: the line: Invalid JSON"),
        ('look {"load": 1}', "line 1: state: Field required"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replayed(tmp_path, line)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        CliRunner().invoke(
            app, ["explain", "--replay", str(tmp_path / "no")], catch_exceptions=False
        )
