from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from cluster.cli.main import app
from cluster.config.serve_file import read_serve_file
from tests.triton_repository import write_repository


def run(folder: Path, *options: str) -> Result:
    arguments = ["models", "import", str(folder / "triton"), "--store", str(folder / "store")]
    return CliRunner().invoke(app, [*arguments, "--out", str(folder / "mine.yaml"), *options])


def test_the_report_is_one_json_object_and_the_file_loads(tmp_path: Path) -> None:
    write_repository(tmp_path / "triton")

    done = run(tmp_path, "--json", "--strict")

    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["file"] == str(tmp_path / "mine.yaml")
    assert report["ensembles"] == ["pipeline"]
    assert {each["outcome"] for each in report["findings"]} == {"changed"}
    assert read_serve_file(tmp_path / "mine.yaml")[1].store.path == str(tmp_path / "store")


def test_strict_writes_no_file_when_a_setting_would_be_lost(tmp_path: Path) -> None:
    root = write_repository(tmp_path / "triton")
    config = root / "simple/config.pbtxt"
    config.write_text(config.read_text() + 'metric_tags { key: "a" value: "b" }\n')

    done = run(tmp_path, "--strict")

    assert done.exit_code == 2
    assert "dropped  simple: metric_tags: " in done.stdout
    assert not (tmp_path / "mine.yaml").exists()


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    write_repository(tmp_path / "triton")
    (tmp_path / "mine.yaml").write_text("mine")

    done = run(tmp_path)

    assert done.exit_code == 2
    assert "exists already" in done.stderr
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_a_folder_without_models_says_what_a_model_is(tmp_path: Path) -> None:
    (tmp_path / "triton").mkdir()

    done = run(tmp_path)

    assert done.exit_code == 2
    assert "a model is a folder with a config.pbtxt" in done.stderr
