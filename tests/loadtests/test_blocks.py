from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadtests.blocks import block_order, compare


def test_every_unit_is_abba_or_baab_and_both_occur() -> None:
    order = block_order(20, seed=1)
    units = {"".join(order[start : start + 4]) for start in range(0, len(order), 4)}

    assert len(order) == 80
    assert units == {"ABBA", "BAAB"}


def test_the_order_is_drawn_from_the_seed() -> None:
    assert block_order(8, seed=1) == block_order(8, seed=1)
    assert block_order(8, seed=1) != block_order(8, seed=2)


def test_a_drift_common_to_both_sides_cancels() -> None:
    speed: Iterator[float] = iter(range(100, 200))

    def ours() -> float:
        return 2.0 * next(speed)

    def theirs() -> float:
        return 1.0 * next(speed)

    found = compare(ours, theirs, num_units=4, seed=3, canary=lambda: 1.0)

    assert found.ratio(float).value == pytest.approx(2.0, rel=0.01)
    assert found.num_dropped() == 0


def test_a_pair_whose_canary_strays_is_dropped() -> None:
    canaries = iter([10.0, 10.0, 10.0, 30.0, 10.0, 10.0, 10.0, 10.0])
    found = compare(lambda: 3.0, lambda: 1.0, num_units=2, seed=0, canary=lambda: next(canaries))

    assert found.num_dropped() == 1
    assert found.values("A", float) == [3.0, 3.0, 3.0]


def test_pairs_are_kept_when_no_canary_was_steady() -> None:
    canaries = iter([1.0, 100.0, 100.0, 1.0])
    found = compare(lambda: 3.0, lambda: 1.0, num_units=1, seed=0, canary=lambda: next(canaries))

    assert len(found.pairs()) == 2
