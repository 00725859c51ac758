from __future__ import annotations

from cluster.experiments.counts import Agreement, ArmCounts, Stratum, totals
from tests.cluster.experiments.making import arm, measure


def test_sums_of_two_doors_are_the_sums_of_all_their_observations() -> None:
    together = measure([1.0, 2.0, 4.0, 8.0])

    apart = measure([1.0, 2.0]) + measure([0, 0, 4.0, 8.0][2:], lambda i: i + 2)

    assert apart == together
    assert (together.count, together.total, together.mean) == (4, 15.0, 3.75)


def test_nothing_added_changes_nothing() -> None:
    assert arm(1) + ArmCounts() == arm(1)
    assert ArmCounts() + arm(1) == arm(1)


def test_the_largest_difference_of_mirrored_answers_is_kept_not_added() -> None:
    found = Agreement(count=1, max_abs_difference=0.5) + Agreement(count=2, max_abs_difference=0.2)

    assert found == Agreement(count=3, max_abs_difference=0.5)


def test_an_arms_totals_cover_all_strata() -> None:
    strata = (
        Stratum(weights={"a": 1}, arms={"a": ArmCounts(drawn=3, latency_buckets={7: 1})}),
        Stratum(weights={"a": 2}, arms={"a": ArmCounts(drawn=4, latency_buckets={7: 2, 8: 1})}),
    )

    found = totals(strata, "a")

    assert (found.drawn, found.latency_buckets) == (7, {7: 3, 8: 1})
