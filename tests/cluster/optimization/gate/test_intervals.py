"""Intervals against published and exact values."""

from __future__ import annotations

from random import Random

import pytest

from cluster.optimization.gate.intervals import bootstrap, paired_difference, wilson


@pytest.mark.parametrize(
    ("right", "num", "low", "high"),
    [(18, 20, 0.699, 0.972), (23, 25, 0.750, 0.978), (20, 20, 0.839, 1.0), (0, 20, 0.0, 0.161)],
)
def test_a_share_has_wilsons_interval(right: int, num: int, low: float, high: float) -> None:
    found = wilson(right, num)

    assert found.value == right / num
    assert found.low == pytest.approx(low, abs=1e-3)
    assert found.high == pytest.approx(high, abs=1e-3)


def test_few_items_without_a_disagreement_do_not_exclude_a_difference() -> None:
    few, many = paired_difference(0, 0, 20), paired_difference(0, 0, 10_000)

    assert few.value == many.value == 0
    assert few.low < -0.05
    assert many.low > -0.0005


def test_the_paired_interval_covers_the_truth_in_about_95_of_100_draws() -> None:
    draw = Random(3)
    covered = 0
    for _ in range(400):
        outcomes = [draw.random() for _ in range(300)]
        gained = sum(each < 0.04 for each in outcomes)
        lost = sum(0.04 <= each < 0.10 for each in outcomes)
        found = paired_difference(gained, lost, 300)
        covered += found.low <= -0.02 <= found.high

    assert covered >= 365


def test_a_bootstrap_interval_holds_the_mean_of_its_values() -> None:
    values = [Random(1).gauss(5, 1) for _ in range(50)]

    found = bootstrap(values)

    assert found.low <= found.value <= found.high
    assert found == bootstrap(values)


@pytest.mark.parametrize("make", [lambda: wilson(0, 0), lambda: paired_difference(0, 0, 0)])
def test_no_items_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="at least one item"):
        make()  # type: ignore[operator]
