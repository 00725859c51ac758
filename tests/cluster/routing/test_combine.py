from __future__ import annotations

import numpy as np
import pytest

from cluster.errors import EngineFailed
from cluster.routing.combine import mean, top_k


def test_the_mean_of_members_is_their_weighted_mean() -> None:
    one, two = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)

    assert mean([one, two]).tolist() == [[0.5, 0.5]]
    assert mean([one, two], [3, 1]).tolist() == [[0.75, 0.25]]
    assert mean([one, two]).dtype == np.float32


def test_members_of_different_shapes_cannot_be_averaged() -> None:
    with pytest.raises(EngineFailed, match="different shapes"):
        mean([np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32)])


def test_top_k_is_best_first_and_of_equals_the_lower_index_first() -> None:
    probabilities = np.array([[0.1, 0.4, 0.4, 0.1]], np.float32)

    labels, scores = top_k(probabilities, [b"a", b"b", b"c", b"d"], 3)

    assert labels.tolist() == [[b"b", b"c", b"a"]]
    assert scores.tolist() == [[pytest.approx(0.4), pytest.approx(0.4), pytest.approx(0.1)]]
