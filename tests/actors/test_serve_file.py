from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import actors.app
from actors.app import build
from actors.serve_file import file_of
from cluster.errors import ConfigError

ARGS = {"variants": {"a": {"source": "m"}}}
FILE = f"""\
http_optons: {{port: 8500}}
applications:
  - name: squadron
    import_path: actors.app:build
    args: {json.dumps(ARGS)}
"""
BELOW = """\
import json, sys
from actors.serve_file import file_of
print(file_of(json.loads(sys.argv[1])))
"""
SERVE = """\
import subprocess, sys
subprocess.run([sys.executable, "-c", {below!r}, {args!r}], check=True, cwd={root!r})
"""


def found_below_serve_run(folder: Path, args: dict[str, object], root: Path) -> str:
    """What a process finds that a program named `serve` started, as Ray's workers are."""
    serve = folder / "serve"
    serve.write_text(SERVE.format(below=BELOW, args=json.dumps(args), root=str(root)))
    command = [sys.executable, str(serve), "run", "--route-prefix", "/", "some.yaml"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "some.yaml"
    made.write_text(FILE)
    return made


def test_the_file_of_serve_run_is_found_from_below(file: Path, root: Path) -> None:
    assert found_below_serve_run(file.parent, ARGS, root) == str(file)


def test_a_file_with_other_args_is_not_the_one(file: Path, root: Path) -> None:
    assert found_below_serve_run(file.parent, {"variants": {}}, root) == "None"


def test_without_serve_run_above_no_file_is_found() -> None:
    assert file_of(ARGS) is None


def test_a_typo_beside_the_args_is_refused_where_the_file_is_known(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.app, "file_of", lambda args: file)
    with pytest.raises(ConfigError, match=r"http_optons: unknown key.*mean 'http_options'") as told:
        build(ARGS)
    assert told.value.message.startswith(str(file))


def test_a_model_that_is_missing_is_told_with_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(FILE.replace("http_optons", "http_options"))
    monkeypatch.setattr(actors.app, "file_of", lambda args: file)
    monkeypatch.setenv("SQUADRON_MODEL_STORE", str(file.parent))
    with pytest.raises(ConfigError, match=r"some\.yaml: variants\.a: no model 'm'"):
        build(ARGS)


def test_a_misspelt_builder_is_told_the_right_one() -> None:
    with pytest.raises(AttributeError, match=r"no 'buld'; import_path is 'actors\.app:build'"):
        actors.app.buld  # noqa: B018
