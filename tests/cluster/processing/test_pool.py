from __future__ import annotations

import numpy as np
import pytest

from cluster.processing.pool import mean_pool


@pytest.mark.parametrize("is_normalised", [True, False])
def test_it_is_the_mean_of_the_tokens_that_count(is_normalised: bool) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(4, 7, 5)).astype(np.float32)
    lengths = [7, 1, 3, 5]
    mask = np.array([[1] * n + [0] * (7 - n) for n in lengths])
    expected = np.array(
        [row[:n].astype(np.float64).mean(axis=0) for row, n in zip(vectors, lengths, strict=True)]
    )
    if is_normalised:
        expected /= np.sqrt((expected**2).sum(axis=1, keepdims=True))

    found = mean_pool(vectors, mask, is_normalised=is_normalised)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_tokens_that_do_not_count_change_nothing() -> None:
    vectors = np.array([[[1, 2], [3, 4], [1e30, -1e30]]], np.float32)
    short = mean_pool(vectors[:, :2], np.ones((1, 2)), is_normalised=True)

    np.testing.assert_array_equal(
        mean_pool(vectors, np.array([[1, 1, 0]]), is_normalised=True), short
    )


def test_no_tokens_at_all_are_the_zero_vector() -> None:
    found = mean_pool(np.ones((1, 3, 2), np.float32), np.zeros((1, 3)), is_normalised=True)

    assert found.tolist() == [[0, 0]]


def test_half_precision_vectors_are_pooled_in_single() -> None:
    vectors = np.full((1, 100, 2), 60000, np.float16)

    assert mean_pool(vectors, np.ones((1, 100)), is_normalised=False).tolist() == [[60000] * 2]
