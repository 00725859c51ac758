from __future__ import annotations

import numpy as np
import pytest

from cluster.config.ensembles.combining import CombineStep
from cluster.errors import EngineFailed
from cluster.routing.ensembles.combine import combine, mean, top_k
from cluster.tensors import Array, tensor


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


P = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4]], np.float32)
Q = np.array([[0.1, 0.6, 0.3], [0.2, 0.2, 0.6]], np.float32)
R = np.array([[0.5, 0.4, 0.1], [0.3, 0.4, 0.3]], np.float32)


def combined(kind: str, *values: Array, **keys: object) -> Array:
    names = [f"v{index}" for index in range(len(values))]
    step = CombineStep.model_validate({"combine": kind, "inputs": names, "output": "y", **keys})
    return combine(step, dict(zip(names, values, strict=True)))


def test_the_mean_of_logits_is_the_normalised_geometric_mean() -> None:
    found = combined("logit_mean", P, Q, weights=[2, 1])

    product = P.astype(np.float64) ** (2 / 3) * Q.astype(np.float64) ** (1 / 3)
    np.testing.assert_allclose(found, product / product.sum(axis=1, keepdims=True), atol=1e-6)
    assert found.dtype == np.float32


def test_logits_and_the_probabilities_they_stand_for_combine_to_the_same() -> None:
    logits = [np.log(value) + 5 for value in (P, Q)]

    for kind in ("soft_vote", "logit_mean"):
        np.testing.assert_allclose(
            combined(kind, *logits, given="logits"), combined(kind, P, Q), atol=1e-6
        )


def test_one_probability_a_row_is_averaged_in_log_odds() -> None:
    p, q = np.array([0.9], np.float32), np.array([0.5], np.float32)

    assert combined("logit_mean", p, q)[0] == pytest.approx(0.75, abs=1e-6)
    assert combined("logit_mean", np.array([1.0]), np.array([0.0]))[0] == pytest.approx(0.5)


def test_a_hard_vote_gives_each_class_its_share_of_the_votes() -> None:
    assert combined("hard_vote", P, Q, R).tolist() == [
        [pytest.approx(2 / 3), pytest.approx(1 / 3), 0],
        [0, pytest.approx(2 / 3), pytest.approx(1 / 3)],
    ]
    assert combined("hard_vote", P, Q, R, weights=[1, 3, 1])[0].argmax() == 1
    assert combined("hard_vote", np.array([0.5]), np.array([0.4])).tolist() == [0.5]


def test_a_vote_of_labels_is_won_by_most_and_of_equals_by_the_earlier_member() -> None:
    votes = [tensor("v", np.array(row)).array for row in (["a", "b"], ["c", "b"], ["c", "a"])]

    assert combined("hard_vote", *votes).tolist() == [b"c", b"b"]
    assert combined("hard_vote", *votes[:2]).tolist() == [b"a", b"b"]
    assert combined("hard_vote", *votes, weights=[3, 1, 1]).tolist() == [b"a", b"b"]
    assert combined("hard_vote", np.array([1, 2]), np.array([2, 2])).tolist() == [1, 2]


def test_the_weights_of_members_that_are_missing_are_left_out() -> None:
    step = CombineStep.model_validate(
        {"combine": "mean", "inputs": ["a", "b", "c"], "weights": [1, 2, 3], "output": "y"}
    )

    found = combine(step, {"a": np.array([3.0]), "c": np.array([7.0])})

    assert found.tolist() == [6.0]
