"""The file of keys: what may stand in it, and what its mistakes are told like."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from cluster.config.security.api_keys import read_keys
from cluster.errors import ConfigError

GOOD = {"id": "0123456789ab", "name": "app", "sha256": "a" * 64, "scopes": ["infer:resnet"]}


def mistake(folder: Path, *keys: object) -> str:
    file = folder / "keys.json"
    file.write_bytes(orjson.dumps({"keys": keys}))
    with pytest.raises(ConfigError) as wrong:
        read_keys(file)
    return wrong.value.message


def test_a_mistake_names_file_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    told = mistake(tmp_path, {**GOOD, "scopes": ["infer:", "root"]})

    assert "keys.json: keys.0.scopes" in told
    assert "'infer:' is no scope; allowed: infer (every model), infer:MODEL, admin" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scopes": []}, "keys.0.scopes"),
        ({"sha256": "plain"}, "keys.0.sha256"),
        ({"requests_per_s": 0}, "keys.0.requests_per_s"),
        ({"expires": "2027-01-01T00:00:00"}, "keys.0.expires"),
        ({"id": "../../etc"}, "keys.0.id"),
        ({"secret": "x"}, "keys.0.secret"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, change: dict[str, object], told: str
) -> None:
    assert told in mistake(tmp_path, {**GOOD, **change})


def test_an_id_stands_once(tmp_path: Path) -> None:
    assert "two keys have the id '0123456789ab'" in mistake(tmp_path, GOOD, GOOD)


def test_a_file_that_is_not_there_or_no_json_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; `squadron keys create --file"):
        read_keys(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"keys": [')
    with pytest.raises(ConfigError, match="not JSON"):
        read_keys(tmp_path / "half.json")
