from __future__ import annotations

import numpy as np
import pytest

from cluster.experiments.agreement import compare
from cluster.experiments.counts import Agreement
from cluster.tensors import tensor


def test_equal_answers_agree_wholly() -> None:
    outputs = (
        tensor("labels", np.array([[b"cat", b"dog"], [b"dog", b"cat"]], dtype=object)),
        tensor("scores", np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32)),
    )

    found = compare(outputs, outputs)

    assert (found.same_top1, found.num_ranked) == (4, 4)
    assert (found.max_abs_difference, found.num_cosine) == (0.0, 1)
    assert found.cosine == pytest.approx(1.0)


def test_differences_are_measured() -> None:
    given = (tensor("scores", np.array([[0.9, 0.1]], dtype=np.float32)),)
    other = (tensor("scores", np.array([[0.4, 0.6]], dtype=np.float32)),)

    found = compare(given, other)

    assert (found.same_top1, found.num_ranked) == (0, 1)
    assert found.max_abs_difference == pytest.approx(0.5)


def test_outputs_of_other_shapes_or_names_are_not_compared() -> None:
    given = (tensor("a", np.zeros((1, 2), dtype=np.float32)),)
    other = (
        tensor("a", np.zeros((1, 3), dtype=np.float32)),
        tensor("b", np.zeros((1, 2), dtype=np.float32)),
    )

    assert compare(given, other) == Agreement(count=1, num_unlike=1)


def test_labels_and_numbers_of_one_name_cannot_be_compared() -> None:
    numbers = (tensor("a", np.zeros((1, 2), dtype=np.float32)),)
    labels = (tensor("a", np.array([[b"cat", b"dog"]], dtype=object)),)

    for given, other in ((numbers, labels), (labels, numbers)):
        assert compare(given, other) == Agreement(count=1, num_unlike=1)


@pytest.mark.parametrize(
    ("given", "other", "difference", "cosine"),
    [
        ([[1.0, -np.inf]], [[1.0, -np.inf]], 0.0, 1.0),
        ([[1.0, 2.0, -np.inf]], [[1.0, 2.5, -np.inf]], 0.5, 0.995),
        ([[1.0, 2.0]], [[1.0, np.inf]], np.finfo(np.float64).max, 1.0),
        ([[1.0, np.nan]], [[1.0, np.nan]], 0.0, 1.0),
        ([[1.0, np.nan]], [[1.0, 0.0]], np.finfo(np.float64).max, 1.0),
        ([[1e308, 1e308]], [[1e308, -1e308]], np.finfo(np.float64).max, 0.0),
    ],
)
def test_what_is_kept_of_masked_and_broken_scores_is_a_number(
    given: list[list[float]], other: list[list[float]], difference: float, cosine: float
) -> None:
    found = compare((tensor("s", np.array(given)),), (tensor("s", np.array(other)),))

    assert found.max_abs_difference == pytest.approx(difference)
    assert found.cosine == pytest.approx(cosine, abs=0.01)
