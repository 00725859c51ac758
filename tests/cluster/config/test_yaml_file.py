"""YAML as configurations use it: merges, keys that appear twice, files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config.serve_file import read_serve_file
from cluster.config.yaml_file import parse_yaml, read_mapping
from cluster.errors import ConfigError
from tests.cluster.config.test_serve_file import RIGHT

BASE = "base: &base {x: 1, y: 2}\nmore: &more {y: 5, z: 6}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("c:\n  <<: *base\n", {"x": 1, "y": 2}),
        ("c:\n  y: 3\n  <<: *base\n", {"x": 1, "y": 3}),
        ("c:\n  <<: *base\n  y: 3\n", {"x": 1, "y": 3}),
        ("c:\n  <<: [*base, *more]\n", {"x": 1, "y": 2, "z": 6}),
        ("d: &d\n  <<: *base\n  y: 4\nc:\n  <<: *d\n  x: 9\n", {"x": 9, "y": 4}),
        ("c:\n  <<: {w: 7}\n", {"w": 7}),
        ("c: {'<<': 1}\n", {"<<": 1}),
    ],
)
def test_a_merge_is_what_its_own_keys_leave_of_it(text: str, found: Any) -> None:
    loaded: Any = parse_yaml(BASE + text)

    assert loaded["c"] == found
    assert loaded == yaml.safe_load(BASE + text)
    assert (loaded["base"], loaded["more"]) == ({"x": 1, "y": 2}, {"y": 5, "z": 6})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c:\n  y: 1\n  y: 2\n", r"key 'y' appears twice.*line 5, column 3"),
        ("c:\n  <<: *base\n  y: 1\n  y: 2\n", r"key 'y' appears twice.*line 6, column 3"),
        ("c:\n  <<: *base\n  <<: *more\n", r"key '<<' appears twice; allowed: one, .*line 5"),
        ("c:\n  <<: 3\n", r"expected a mapping or list of mappings for merging.*line 4"),
        ("c:\n  <<: [3]\n", r"expected a mapping for merging.*line 4"),
        ("c:\n  <<: {w: 1, w: 2}\n", r"key 'w' appears twice.*line 4"),
        ("c: {[1]: 3}\n", r"a key is a list or a mapping; allowed: text.*line 3, column 5"),
        ("c: *nobody\n", r"undefined alias 'nobody'.*line 3"),
        ("c: 2026-13-01\n", r"month must be in 1..12"),
        ("c: " + "[" * 5000, r"recursion"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(BASE + text)

    with pytest.raises(ConfigError, match=rf"(?s)c\.yaml: not valid YAML: .*{message}"):
        read_mapping(file)


def test_merges_of_merges_do_not_double_with_each_level() -> None:
    levels = "".join(
        f"a{level + 1}: &a{level + 1}\n  <<: [*a{level}, *a{level}]\n" for level in range(40)
    )

    loaded: Any = parse_yaml(f"a0: &a0 {{x: 1}}\n{levels}")

    assert loaded["a40"] == {"x": 1}


def test_a_mapping_that_merges_itself_ends() -> None:
    assert parse_yaml("a: &a\n  x: 1\n  <<: *a\n") == {"a": {"x": 1}}


def test_a_serve_file_may_share_settings_by_a_merge(tmp_path: Path) -> None:
    content: Any = yaml.safe_load(RIGHT)
    variants = content["applications"][0]["args"]["variants"]
    (name, variant), *_ = variants.items()
    variants["twin"] = variant
    file = tmp_path / "serve.yaml"
    text = yaml.safe_dump(content)
    assert "*id001" in text  # an anchor and its alias
    file.write_text(text.replace("twin: *id001", "twin:\n          <<: *id001"))

    _, config = read_serve_file(file)

    assert config.variants["twin"] == config.variants[name]


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe\x00", "not UTF-8 text"), (None, "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "c.yaml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=f"c.yaml: {message}"):
        read_mapping(file)
