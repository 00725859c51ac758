"""The floor under a p99: known queues, in virtual time."""

from __future__ import annotations

import pytest

from loadtests.floor import batch_ms, p99_floor_ms


def test_one_server_of_constant_service_at_70_percent_has_the_p99_of_queueing_theory() -> None:
    """M/D/1: the tail of the wait is 0.8 exp(-0.675 t / service), 6.5 services at 1 %."""
    assert p99_floor_ms({1: 10.0}, rate_per_s=70.0) == pytest.approx(75.0, rel=0.1)


def test_batches_that_cost_as_much_as_one_row_leave_two_of_them() -> None:
    """One under way when it arrives, and its own."""
    found_ms = p99_floor_ms(dict.fromkeys((1, 2, 4, 8, 16, 32), 10.0), rate_per_s=700.0)

    assert 19.0 < found_ms <= 20.0


def test_a_batch_between_two_sizes_costs_in_between_and_none_beyond() -> None:
    curve_ms = {1: 10.0, 2: 16.0, 4: 20.0}

    assert batch_ms(curve_ms, 3) == 18.0
    assert batch_ms(curve_ms, 2) == 16.0
    with pytest.raises(ValueError, match="a batch of 5 rows"):
        batch_ms(curve_ms, 5)
