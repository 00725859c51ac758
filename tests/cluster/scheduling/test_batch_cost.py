from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduling.batch_cost import MAX_CURVES, BatchCost, CostBook


def line(*sizes: int, times: int = 1) -> BatchCost:
    """10 ms a batch and 1 ms a row, measured at `sizes`."""
    curve = BatchCost()
    for _ in range(times):
        for size in sizes:
            curve.observe(size, 0.010 + 0.001 * size)
    return curve


def test_nothing_measured_costs_nothing() -> None:
    curve = BatchCost()

    assert (curve.mean_s(8), curve.safe_s(8), curve.fit(0.0, 8)) == (0.0, 0.0, 8)


def test_sizes_between_and_above_the_measured_ones_lie_on_their_line() -> None:
    curve = line(4, 8)

    assert curve.mean_s(6) == pytest.approx(0.016)
    assert curve.mean_s(16) == pytest.approx(0.026)


def test_below_the_smallest_measured_size_the_cost_is_taken_for_proportional() -> None:
    assert line(4).mean_s(1) == pytest.approx(0.014 / 4)


def test_a_change_of_the_engine_is_learned() -> None:
    curve = line(4, times=50)
    for _ in range(50):
        curve.observe(4, 0.1)

    assert curve.mean_s(4) == pytest.approx(0.1, rel=0.01)


def test_the_safe_cost_covers_what_varies() -> None:
    curve = BatchCost()
    for _ in range(50):
        curve.observe(1, 0.009)
        curve.observe(1, 0.011)

    assert curve.mean_s(1) == pytest.approx(0.010, rel=0.05)
    assert 0.011 <= curve.safe_s(1) <= 0.014


@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(1e-4, 1.0)), min_size=1, max_size=60),
    st.floats(0, 2),
    st.integers(1, 300),
)
def test_costs_never_fall_with_rows_and_fit_is_the_largest_size_in_time(
    seen: list[tuple[int, float]], seconds: float, limit: int
) -> None:
    curve = BatchCost()
    for rows, took_s in seen:
        curve.observe(rows, took_s)

    costs = [curve.safe_s(rows) for rows in range(1, limit + 1)]
    assert all(a <= b + 1e-12 for a, b in pairwise(costs))
    assert curve.fit(seconds, limit) == sum(cost <= seconds for cost in costs)


def test_a_curve_keeps_a_bounded_number_of_points() -> None:
    curve = BatchCost()
    for rows in range(1, 65537, 7):
        curve.observe(rows, rows * 1e-6)

    assert len(curve.points()) < 140


def test_lanes_have_curves_of_their_own_up_to_a_number() -> None:
    book = CostBook()
    book.observe(32, 4, 0.010)
    book.observe(128, 4, 0.040)

    assert (book.curve(32).mean_s(4), book.curve(128).mean_s(4)) == (0.010, 0.040)
    assert book.curve(None).mean_s(4) == pytest.approx(0.025)
    many = [book.curve(lane) for lane in range(1000, 1000 + 2 * MAX_CURVES)]
    assert many[-1] is book.curve(None)


def test_a_quick_probe_is_believed_at_once_at_every_size() -> None:
    curve = line(1, 4, 8, times=50)
    for _ in range(4):
        for size in (1, 4, 8):
            curve.observe(size, 2.0)
    spoilt_s = curve.safe_s(8)

    curve.ease(1, 0.011)

    assert spoilt_s > 1
    assert curve.mean_s(1) == pytest.approx(0.011)
    assert curve.safe_s(8) < 0.05


def test_a_slow_probe_counts_as_any_other_batch() -> None:
    curve, same = line(1), line(1)

    curve.ease(1, 0.1)
    same.observe(1, 0.1)

    assert curve.points() == same.points()
