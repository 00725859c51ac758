from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cluster.optimization.stacking.fit import (
    StackingHead,
    fit,
    out_of_fold_accuracy,
    stacked,
    write_onnx,
)
from cluster.tensors import Array

GENERATOR = np.random.default_rng(7)
CLASSES = ("ant", "bee", "cat")


def members(num_rows: int = 60) -> tuple[dict[str, Array], list[str]]:
    """`good` shows the class through noise, `dull` is noise alone."""
    truth = np.arange(num_rows) % 3
    good = np.eye(3)[truth] + GENERATOR.normal(0, 0.3, (num_rows, 3))
    dull = GENERATOR.normal(0, 1, (num_rows, 2))
    values = {"good": good.astype(np.float32), "dull": dull.astype(np.float32)}
    return values, [CLASSES[index] for index in truth]


def test_the_fitted_head_is_at_the_minimum_of_its_objective() -> None:
    values, labels = members()

    head = fit(values, labels, inverse_l2=2.0)

    wrong = head.probabilities(values) - np.eye(3)[[CLASSES.index(label) for label in labels]]
    np.testing.assert_allclose(head.weights + 2.0 * stacked(values).T @ wrong, 0, atol=1e-5)
    np.testing.assert_allclose(wrong.sum(axis=0), 0, atol=1e-5)
    assert head.classes == CLASSES


def test_the_onnx_model_gives_what_the_head_says(tmp_path: Path) -> None:
    values, labels = members()
    head = fit(values, labels, inverse_l2=1.0)
    write_onnx(head, tmp_path / "model.onnx")
    missing = {"good": values["good"], "dull": np.full_like(values["dull"], np.nan)}

    for given in (values, missing):
        found = served(tmp_path / "model.onnx", given)
        assert np.abs(found - head.probabilities(given)).max() < 1e-6
        assert not np.isnan(found).any()


def test_accuracy_out_of_fold_is_that_of_rows_that_were_not_fitted() -> None:
    values, labels = members(150)
    noise = {"dull": values["dull"]}

    assert out_of_fold_accuracy(values, labels, inverse_l2=1.0) > 0.85
    assert out_of_fold_accuracy(noise, labels, inverse_l2=1.0) < 0.55


def test_a_head_of_known_weights_computes_what_they_say() -> None:
    head = StackingHead(
        weights=np.array([[1.0, 0.0], [0.0, 2.0]]),
        bias=np.array([0.0, 1.0]),
        means=np.array([3.0, 0.0]),
        widths={"a": 1, "b": 1},
        classes=("no", "yes"),
    )

    found = head.probabilities({"a": np.array([[np.nan]]), "b": np.array([[0.5]])})

    assert found[0].tolist() == pytest.approx([np.e**3 / (np.e**3 + np.e**2), 1 / (1 + np.e)])


def served(path: Path, given: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, given)
    return np.asarray(found)
