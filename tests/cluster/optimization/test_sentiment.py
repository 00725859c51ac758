from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cluster.optimization.sentiment import LinearHead, fit, write_onnx

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(60, 3))
TARGETS = (VECTORS @ np.array([2.0, -1.0, 0.5]) + RANDOM.normal(size=60) > 0.3).astype(np.float64)


def sigmoid(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return 1 / (1 + np.exp(-values))


def test_fit_is_at_the_minimum_of_the_stated_objective() -> None:
    head = fit(VECTORS, TARGETS, inverse_l2=10.0)
    wrong = sigmoid(VECTORS @ head.weights + head.bias) - TARGETS
    # The gradient of |w|²/2 + C Σ log-loss, by hand; zero only at the one minimum.
    np.testing.assert_allclose(head.weights + 10.0 * VECTORS.T @ wrong, 0, atol=1e-5)
    assert wrong.sum() == pytest.approx(0, abs=1e-6)


def test_stronger_penalty_gives_smaller_weights() -> None:
    weak = fit(VECTORS, TARGETS, inverse_l2=10.0)
    strong = fit(VECTORS, TARGETS, inverse_l2=0.01)
    assert np.linalg.norm(strong.weights) < np.linalg.norm(weak.weights) / 2


def test_graph_computes_the_head(tmp_path: Path) -> None:
    head = LinearHead(weights=np.array([1.0, -2.0]), bias=0.5)
    write_onnx(head, tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "head.onnx", providers=["CPUExecutionProvider"]
    )
    rows = np.array([[0, 0], [1, 1], [3, -1]], dtype=np.float32)
    (found,) = session.run(None, {"embedding": rows})
    np.testing.assert_allclose(found, sigmoid(np.array([[0.5], [-0.5], [5.5]])), rtol=1e-6)
