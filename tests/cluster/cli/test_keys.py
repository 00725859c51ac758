"""`squadron keys`: what it shows, what it keeps and what it refuses."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.access.keys import KeyRing
from cluster.cli.keys import app
from cluster.config.security.api_keys import read_keys
from cluster.errors import ConfigError, Unauthorized


def run(file: Path, *words: str) -> Any:
    result = CliRunner().invoke(app, [*words, "--file", str(file), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def test_a_key_that_was_made_is_good_until_it_is_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = run(file, "create", "app", "--scope", "infer:resnet", "--requests-per-s", "5")
    now = datetime.now(UTC)

    caller = KeyRing(read_keys(file).keys).caller(f"Bearer {made['key']}", now)
    run(file, "revoke", made["id"])

    assert caller.may_infer("resnet")
    assert not caller.may_infer("bert")
    assert caller.key.requests_per_s == 5
    with pytest.raises(Unauthorized):
        KeyRing(read_keys(file).keys).caller(f"Bearer {made['key']}", now)


def test_the_file_and_the_list_hold_no_key_and_the_file_is_its_owner_s(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = run(file, "create", "app", "--scope", "admin")["key"]

    listed = CliRunner().invoke(app, ["list", "--file", str(file)]).stdout
    found = run(file, "list")

    secret = key.split("_", 2)[2]
    assert secret not in file.read_text()
    assert secret not in listed + json.dumps(found)
    assert [each["name"] for each in found] == ["app"]
    assert "sha256" not in found[0]
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_file_stays_its_owner_s_whoever_changes_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = run(file, "create", "app", "--scope", "infer")
    file.chmod(0o640)
    os.chown(file, 4321, 8765)

    run(file, "revoke", made["id"])

    found = file.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (4321, 8765, 0o640)
    # So that its owner can change it as well.
    assert (tmp_path / ".keys.json.lock").stat().st_uid == 4321
    assert run(file, "list") == []


def test_an_owner_that_cannot_be_kept_is_said_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.json"
    made = run(file, "create", "app", "--scope", "infer")

    def refused(*_given: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    # What the kernel says to anybody but root.
    monkeypatch.setattr(os, "chown", refused)
    stat = os.stat
    own = stat(file)
    foreign = os.stat_result((*own[:4], own.st_uid + 1, *own[5:]))
    monkeypatch.setattr(
        Path, "stat", lambda self, **named: foreign if self == file else stat(self, **named)
    )
    with pytest.raises(ConfigError, match="nothing was changed"):
        run(file, "revoke", made["id"])

    assert [each.id for each in read_keys(file).keys] == [made["id"]]
    assert sorted(each.name for each in tmp_path.iterdir()) == [".keys.json.lock", "keys.json"]


def test_two_keys_are_never_alike(tmp_path: Path) -> None:
    made = [run(tmp_path / "k", "create", "app", "--scope", "infer") for _ in range(2)]

    assert made[0]["key"] != made[1]["key"]
    assert len(read_keys(tmp_path / "k").keys) == 2


@pytest.mark.parametrize(
    "text", ["soon", "9", "90x", "2127-13-01", "999999999d", "0d", "2020-01-01"]
)
def test_a_time_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="--expires"):
        run(tmp_path / "k", "create", "app", "--scope", "infer", "--expires", text)
    assert not (tmp_path / "k").exists()


def test_a_name_is_of_printable_characters_and_no_style(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="printable"):
        run(tmp_path / "k", "create", "a\nb", "--scope", "infer")

    run(tmp_path / "k", "create", "[/b] [red]app", "--scope", "infer")
    listed = CliRunner().invoke(app, ["list", "--file", str(tmp_path / "k")])

    assert listed.exit_code == 0
    assert "[/b] [red]app" in listed.stdout


def test_a_date_is_meant_in_utc(tmp_path: Path) -> None:
    run(tmp_path / "k", "create", "app", "--scope", "infer", "--expires", "2127-01-31")

    assert read_keys(tmp_path / "k").keys[0].expires == datetime(2127, 1, 31, tzinfo=UTC)


def test_revoking_what_is_not_there_names_what_is(tmp_path: Path) -> None:
    made = run(tmp_path / "k", "create", "app", "--scope", "infer")

    with pytest.raises(ConfigError, match=f"no key 'other'; allowed: {made['id']}"):
        run(tmp_path / "k", "revoke", "other")
