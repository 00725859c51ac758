from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cluster.cli.models import app
from tests.cluster.optimization.artefacts import write_onnx


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_add_then_list_then_verify(tmp_path: Path, store: Path) -> None:
    source = write_onnx(tmp_path / "double.onnx")
    added = run("add", source, "--store", store, "--json")
    assert added.exit_code == 0, added.output
    facts = json.loads(added.stdout)
    assert facts["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    listed = json.loads(run("list", "--store", store, "--json").stdout)
    assert listed == {"store": str(store), "models": [facts], "problems": []}
    verified = json.loads(run("verify", "double/1", "--store", store, "--json").stdout)
    assert verified == {"verified": [{"name": "double", "version": "1"}], "problems": []}


def test_list_shows_a_table(tmp_path: Path, store: Path) -> None:
    run("add", write_onnx(tmp_path / "double.onnx"), "--store", store)
    shown = run("list", "--store", store)
    assert shown.exit_code == 0
    assert "double" in shown.stdout


def test_empty_store_says_what_to_run(store: Path) -> None:
    shown = run("list", "--store", store)
    assert shown.exit_code == 0
    assert "squadron models fetch" in shown.stdout.replace("\n", " ")


def test_verify_names_every_artefact_that_was_changed(tmp_path: Path, store: Path) -> None:
    for name in ("a", "b", "c"):
        run("add", write_onnx(tmp_path / f"{name}.onnx"), "--store", store)
    for name in ("a", "b"):
        (store / name / "1" / f"{name}.onnx").write_bytes(b"tampered")
    result = run("verify", "--store", store)
    assert result.exit_code == 2
    assert "a.onnx: not the file" in result.stderr
    assert "b.onnx: not the file" in result.stderr
    assert "c 1:" in result.stdout


def test_mistakes_of_the_operator_are_one_message_and_exit_code_2(store: Path) -> None:
    for arguments in (
        ("add", "absent.onnx"),
        ("fetch", "no-such-model"),
        ("verify", "no-such-model"),
    ):
        result = run(*arguments, "--store", store)
        assert result.exit_code == 2
        assert result.stderr.startswith("squadron: ")
        assert result.stdout == ""


@pytest.mark.parametrize("arguments", [("add", "absent.onnx"), ("fetch", "no-such-model")])
def test_a_mistake_is_one_json_object_as_well(arguments: tuple[str, ...], store: Path) -> None:
    result = run(*arguments, "--store", store, "--json")
    assert result.exit_code == 2
    assert arguments[1] in json.loads(result.stdout)["error"]


def test_store_comes_from_the_environment(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUADRON_MODEL_STORE", str(store))
    run("add", write_onnx(tmp_path / "double.onnx"))
    assert (store / "double" / "1" / "model.yaml").is_file()


def test_help_has_examples() -> None:
    assert "squadron models fetch efficientnet-lite0" in run("fetch", "--help").stdout


def test_fetch_for_a_config_without_example_models_fetches_nothing(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    command = ["fetch", "--config", str(root / "serve_configs/dev.yaml"), "--store", str(tmp_path)]

    done = CliRunner().invoke(app, [*command, "--json"])

    assert done.exit_code == 0
    assert json.loads(done.stdout)["models"] == []
    assert list(tmp_path.iterdir()) == []


def test_a_broken_card_is_told_and_the_others_are_listed_and_verified(
    tmp_path: Path, store: Path
) -> None:
    for name in ("good", "broken"):
        run("add", write_onnx(tmp_path / f"{name}.onnx"), "--store", store)
    (store / "broken" / "1" / "model.yaml").write_text("name: [")
    listed = run("list", "--store", store, "--json")
    verified = run("verify", "--store", store)
    assert (listed.exit_code, verified.exit_code) == (2, 2)
    content = json.loads(listed.stdout)
    assert [model["name"] for model in content["models"]] == ["good"]
    assert "broken/1/model.yaml" in content["problems"][0]
    assert "good 1:" in verified.stdout
    assert "broken/1/model.yaml" in verified.stderr


def test_help_tells_the_defaults() -> None:
    assert "default: the file's" in " ".join(run("add", "--help").stdout.split())
