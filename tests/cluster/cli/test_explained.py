"""`squadron explain --config`: decisions of a configuration, with no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.errors import ConfigError

CARD = {
    "name": "m",
    "format": "fake",
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    },
}


def written(folder: Path, **changes: Any) -> Path:
    variant = {"card": CARD, "engine": "fake"}
    args = {
        "store": {"path": str(folder)},
        "variants": {"a": variant, "b": {**variant, "autoscaling": {"max_replicas": 4}}},
        "experiments": {
            "e": {"split": {"a": 1, "b": 1}, "canary": {"steps": [10, 100], "step_s": 30}}
        },
        "ensembles": {
            "both": {
                "inputs": ["x"],
                "outputs": ["mean"],
                "steps": [
                    {"combine": "mean", "inputs": ["one", "two"], "output": "mean"},
                    {"model": "a", "outputs": {"y": "one"}},
                    {"model": "b", "inputs": {"x": "one"}, "outputs": {"y": "two"}},
                ],
            }
        },
        **changes,
    }
    application = {"name": "squadron", "import_path": "actors.app:build", "args": args}
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump({"applications": [application]}))
    return file


def told(file: Path, *words: str) -> list[tuple[str, str, str]]:
    result = CliRunner().invoke(app, ["explain", *words, "--config", str(file), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return [(each["kind"], each["subject"], each["reason"]) for each in json.loads(result.stdout)]


def test_every_decision_of_a_file_has_its_sentence(tmp_path: Path) -> None:
    found = told(written(tmp_path))

    of = {(kind, subject): reason for kind, subject, reason in found}
    assert of["engine", "a"] == "fake on auto, as configured"
    assert of["place", "b"].startswith("in processes of its own: auto: engine fake")
    assert of["autoscaling", "b"].startswith("begins with 1 replicas, then 1 to 4: as many as keep")
    assert of["traffic", "e"] == "begins with a 90.0%, b 10.0%; a is the control"
    assert (
        "experiment",
        "e",
        "a canary: 10 -> 95 %, each for 30 s with 200 requests of its own, then 100 %",
    ) in found
    assert of["ensemble", "both"] == (
        "runs in this order: 1. x -> one; 2. one -> two; 3. one, two -> mean"
    )


def test_one_model_can_be_asked_for_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    file = written(tmp_path)

    assert {subject for _, subject, _ in told(file, "e")} == {"e"}
    with pytest.raises(ConfigError, match="has no model 'nobody'; allowed: a, b, e, both"):
        told(file, "nobody")


def test_what_cannot_be_served_here_is_said_and_the_rest_is_told(tmp_path: Path) -> None:
    variant = {"card": CARD, "engine": "fake"}
    file = written(
        tmp_path,
        variants={"a": variant, "b": variant, "gone": {"source": "nothing"}},
        experiments={"f": {"split": {"gone": 1, "a": 0}, "guardrails": {"latency": 0.2}}},
        ensembles={},
    )

    found = told(file)

    assert next(reason for kind, subject, reason in found if subject == "gone").startswith(
        "cannot be served: "
    )
    assert "an arm that is worse than the control by more than latency 20.0%" in found[-1][2]


def test_arms_that_cannot_stand_for_one_another_are_told(tmp_path: Path) -> None:
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]
    other = {**CARD, "signature": {"inputs": inputs, "outputs": outputs}}
    variants = {"a": {"card": CARD, "engine": "fake"}, "b": {"card": other, "engine": "fake"}}
    file = written(tmp_path, variants=variants, ensembles={})

    reasons = [reason for kind, _, reason in told(file, "e") if kind == "experiment"]

    assert reasons[0].startswith("cannot be served: experiments.e.split.b: b takes text (BYTES")
