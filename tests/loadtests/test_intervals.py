from __future__ import annotations

import math
from random import Random

import pytest

from loadtests.intervals import bootstrap_median, ratio_of


def test_a_constant_ratio_has_no_width() -> None:
    found = ratio_of([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])

    assert found.num_pairs == 3
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_the_ratio_is_the_median_of_pairs_so_one_bad_pair_does_not_move_it() -> None:
    assert ratio_of([2, 2, 2, 2, 900], [1, 1, 1, 1, 1]).value == pytest.approx(2)


def test_turning_a_ratio_round_inverts_value_and_interval() -> None:
    new, old = [3.0, 4.0, 5.0, 7.0], [2.0, 2.5, 2.0, 4.0]
    forth, back = ratio_of(new, old), ratio_of(old, new)

    assert back.value == pytest.approx(1 / forth.value)
    assert back.low == pytest.approx(1 / forth.high, rel=0.1)


@pytest.mark.parametrize(("new", "old"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0])])
def test_what_has_no_ratio_is_refused(new: list[float], old: list[float]) -> None:
    with pytest.raises(ValueError, match="values"):
        ratio_of(new, old)


def test_the_bootstrap_covers_the_true_median_about_95_times_in_a_hundred() -> None:
    draw = Random(5)
    num_trials, num_covered = 200, 0
    for trial in range(num_trials):
        samples = [draw.gauss(math.log(1.1), 0.05) for _ in range(20)]
        low, high = bootstrap_median(samples, num_draws=400, seed=trial)
        num_covered += low <= math.log(1.1) <= high

    assert 0.88 <= num_covered / num_trials <= 1.0


def test_more_pairs_make_the_interval_narrower() -> None:
    draw = Random(5)
    samples = [draw.gauss(0, 1) for _ in range(400)]
    few, many = bootstrap_median(samples[:10]), bootstrap_median(samples)

    assert many[1] - many[0] < few[1] - few[0]
