from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.serve_file import read_serve_file
from cluster.errors import ConfigError

RIGHT = """\
applications:
  - name: squadron
    import_path: actors.app:build
    args:
      variants:
        a: {source: m}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "some.yaml"
    file.write_text(text)
    return file


def test_a_serve_file_gives_serves_part_and_ours(tmp_path: Path) -> None:
    serve_file, config = read_serve_file(written(tmp_path, RIGHT))

    assert serve_file.applications[0].name == "squadron"
    assert config.model_names() == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RIGHT.replace("source: m", "source: m, sorce: n"), r"variants\.a\.sorce: unknown key"),
        (RIGHT + "http_option: {}\n", r"http_option: unknown key.*did you mean 'http_options'"),
        (
            RIGHT.replace("    args:", "    route_prefx: /\n    args:"),
            r"^[^\n]*applications\.0\.route_prefx: unknown key.*allowed: args, import_path, "
            r"name, route_prefix, runtime_env \(did you mean 'route_prefix'\?\)$",
        ),
        (RIGHT.replace("actors.app:build", "x:y"), r"exactly one must have import_path.*\]$"),
        (RIGHT.replace("app:build", "app:buld"), r"did you mean 'actors\.app:build'"),
        (RIGHT + "applications: []\n", r"appears twice"),
        ("- 1\n", r"expected keys and values"),
        ("a: [", r"not valid YAML"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    file = written(tmp_path, text)

    with pytest.raises(ConfigError, match=message) as caught:
        read_serve_file(file)

    assert str(file) in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_serve_file(tmp_path / "none.yaml")
