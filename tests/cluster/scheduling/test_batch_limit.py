from __future__ import annotations

from collections.abc import Callable

from cluster.scheduling.batch_cost import BatchCost
from cluster.scheduling.batch_limit import (
    PROBE_EVERY,
    SEEN_ENOUGH,
    AdaptiveLimit,
    BatchLimit,
    what_pays,
)


def driven(
    cost_s: Callable[[int], float], *, target_s: float | None, batches: int, largest: int = 64
) -> AdaptiveLimit:
    """After so many full batches of an engine."""
    limit, curve = AdaptiveLimit(largest, target_s), BatchCost()
    for _ in range(batches):
        rows = limit.now.rows
        curve.observe(rows, cost_s(rows))
        limit.observe(rows, cost_s(rows), curve)
    return limit


def test_the_limit_grows_to_what_two_batches_of_the_target_allow_and_stays_there() -> None:
    limit, curve = AdaptiveLimit(64, 0.040), BatchCost()
    seen: list[int] = []
    for _ in range(300):
        rows = limit.now.rows
        cost_s = 0.005 + 0.001 * rows
        curve.observe(rows, cost_s)
        limit.observe(rows, cost_s, curve)
        seen.append(limit.now.rows)

    # 15 rows take 20 ms, half the target; one step above is tried, and nine tenths taken after.
    others = [rows for rows in seen[50:] if rows not in range(13, 17)]
    # Halves of that, to see whether they pay as well.
    assert set(others) <= {1, 3, 4, 6, 7, 8}
    assert len(others) <= 300 // PROBE_EVERY
    assert limit.now.reason.endswith("rows fit in the target of 40 ms")


def test_a_target_that_not_even_one_row_meets_leaves_one_row() -> None:
    assert driven(lambda rows: 1.0, target_s=0.01, batches=50).now.rows == 1


def test_without_a_target_the_largest_batch_stands_while_it_pays() -> None:
    limit = driven(lambda rows: 0.010 + 0.001 * rows, target_s=None, batches=200)

    assert limit.now == BatchLimit(rows=64, reason="max_batch_size")


def curve_of(points: dict[int, float], times: int = 3) -> BatchCost:
    curve = BatchCost()
    for rows, seconds in points.items():
        for _ in range(times):
            curve.observe(rows, seconds)
    return curve


def test_batching_is_off_where_rows_cost_the_same_in_any_batch() -> None:
    found = what_pays(curve_of({1: 0.004, 4: 0.0156}), 16)

    assert found == BatchLimit(
        rows=1, reason="a row alone takes 4 ms, at best 3.9 ms: batching only adds latency"
    )
    assert not found.is_batching


def test_the_smallest_size_that_is_as_good_as_the_best_is_enough() -> None:
    found = what_pays(curve_of({1: 0.010, 4: 0.012, 16: 0.047}), 64)

    assert found.rows == 4
    assert found.reason == (
        "a row in batches of 4 takes 3 ms, at best 2.94 ms: larger ones only add latency"
    )


def test_nothing_is_judged_before_much_larger_batches_were_measured() -> None:
    assert what_pays(curve_of({1: 0.004, 2: 0.0079}), 16).rows == 16
    assert what_pays(curve_of({1: 0.004, 4: 0.0156}, times=2), 16).rows == 16


def test_a_larger_batch_is_tried_now_and_then_in_case_it_pays_by_now() -> None:
    limit, curve = AdaptiveLimit(8, None), curve_of({1: 0.004, 8: 0.032})
    seen: list[int] = []
    for _ in range(4 * PROBE_EVERY):
        limit.observe(1, 0.004, curve)
        seen.append(limit.now.rows)

    assert seen.count(8) == 4
    assert seen.count(1) == len(seen) - 4


def test_behind_a_backlog_smaller_batches_are_tried_until_it_is_known_what_pays() -> None:
    """All batches are full, so that the curve would show nothing but the largest."""
    limit, curve = AdaptiveLimit(32, None), BatchCost()
    seen: list[int] = []
    for _ in range(20 * PROBE_EVERY):
        rows = limit.now.rows
        seen.append(rows)
        curve.observe(rows, 0.010 * rows)
        limit.observe(rows, 0.010 * rows, curve)

    assert seen[0] == 32
    assert limit.now.rows == 1
    assert "batching only adds latency" in limit.now.reason


def test_where_the_largest_batch_pays_little_is_spent_on_smaller_ones() -> None:
    limit, curve = AdaptiveLimit(32, None), BatchCost()
    seen: list[int] = []
    for _ in range(40 * PROBE_EVERY):
        rows = limit.now.rows
        seen.append(rows)
        curve.observe(rows, 0.010 + 0.0001 * rows)
        limit.observe(rows, 0.010 + 0.0001 * rows, curve)

    assert seen.count(32) == len(seen) - 5 * SEEN_ENOUGH
