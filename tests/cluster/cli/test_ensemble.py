"""`squadron ensemble fit` on the fake engine, whose answers are known: y = 2 * x + 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.config.store import ModelStore
from cluster.errors import ConfigError

CARD = {
    "name": "fake",
    "format": "fake",
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    },
}


def write_config(folder: Path, **combine: Any) -> Path:
    steps = [
        {"model": "one", "outputs": {"y": "first"}},
        {"model": "two", "inputs": {"x": "first"}, "outputs": {"y": "second"}},
        {
            "combine": "stacking",
            "model": "stack",
            "inputs": ["first", "second"],
            "output": "p",
            **combine,
        },
    ]
    args = {
        "variants": {"one": {"card": CARD}, "two": {"card": CARD}, "stack": {"source": "stack"}},
        "ensembles": {"both": {"inputs": ["x"], "outputs": ["p"], "steps": steps}},
    }
    application = {"name": "squadron", "import_path": "actors.app:build", "args": args}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"applications": [application]}))
    return path


def write_rows(folder: Path, num_rows: int = 40) -> Path:
    labels = np.array(["left", "right"] * (num_rows // 2))
    x = np.where(labels == "left", -1.0, 1.0)[:, None] + np.linspace(-0.1, 0.1, num_rows)[:, None]
    path = folder / "rows.npz"
    np.savez(path, x=np.hstack([x, x]).astype(np.float32), label=labels)
    return path


def run(*arguments: object) -> dict[str, Any]:
    found = CliRunner().invoke(app, ["ensemble", "fit", *map(str, arguments), "--json"])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    told: dict[str, Any] = json.loads(found.stdout)
    return told


def test_a_fitted_model_is_in_the_store_with_its_members_as_inputs(tmp_path: Path) -> None:
    config, rows, store = write_config(tmp_path), write_rows(tmp_path), tmp_path / "store"

    told = run(config, "both", "--data", rows, "--store", store)
    again = run(config, "both", "--data", rows, "--store", store)

    assert told["accuracy"] == 1.0
    assert told["alone"] == {"first": 1.0, "second": 1.0}
    assert (told["version"], again["version"]) == ("1", "2")
    card = ModelStore(store).verify("stack", "1")
    assert [(tensor.name, tensor.shape) for tensor in card.signature.inputs] == [
        ("first", [-1, 2]),
        ("second", [-1, 2]),
    ]
    labels = ModelStore(store).folder("stack", "1") / "labels.txt"
    assert labels.read_text().splitlines() == ["left", "right"]


@pytest.mark.parametrize(
    ("change", "rows", "message"),
    [
        ({"combine": "code"}, "x", "exactly one step `combine: stacking` can be fitted, got 0"),
        ({"inputs": ["first", "lost"]}, "x", "nothing but variants and combiners can give lost"),
        ({}, "z", "no column 'x'; there: z, label"),
    ],
)
def test_what_cannot_be_fitted_says_why(
    tmp_path: Path, change: dict[str, Any], rows: str, message: str
) -> None:
    np.savez(tmp_path / "rows.npz", **{rows: np.zeros((2, 2), np.float32)}, label=["a", "b"])

    with pytest.raises(ConfigError, match=message):
        run(write_config(tmp_path, **change), "both", "--data", tmp_path / "rows.npz")


def test_a_csv_may_name_files(tmp_path: Path) -> None:
    from cluster.optimization.stacking.labelled import read_labelled

    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8cat")
    (tmp_path / "rows.csv").write_text("image,label\n@cat.jpg,cat\nplain,dog\n")

    found = read_labelled(tmp_path / "rows.csv", ["image"])

    assert found.inputs["image"].tolist() == [b"\xff\xd8cat", b"plain"]
    assert found.labels == ("cat", "dog")
