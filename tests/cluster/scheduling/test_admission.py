from __future__ import annotations

from cluster.scheduling.admission import Admit, Load, Reject, admit
from cluster.scheduling.batch_cost import BatchCost


def load(**facts: object) -> Load:
    usual = {"rows": 1, "left_s": 1.0, "rows_ahead": 0, "running_s": 0.0, "max_batch_size": 8}
    return Load(**{**usual, **facts})  # type: ignore[arg-type]


def curve() -> BatchCost:
    """100 ms whatever the size."""
    found = BatchCost()
    found.observe(1, 0.1)
    found.observe(8, 0.1)
    return found


def test_the_estimate_is_the_running_batch_those_ahead_and_its_own() -> None:
    # Two full batches are ahead, then its own: 0.05 + 2 * 0.1 + 0.1.
    assert admit(load(rows_ahead=17, running_s=0.05), curve()) == Admit(estimated_s=0.35)


def test_each_other_lane_costs_a_batch_of_its_own() -> None:
    assert admit(load(rows_ahead=4, num_other_lanes=2), curve()) == Admit(estimated_s=0.1 + 2 * 0.1)


def test_what_cannot_be_answered_in_time_is_refused_with_when_to_come_back() -> None:
    assert admit(load(rows_ahead=80, left_s=0.5), curve()) == Reject(
        reason="80 rows are ahead: the answer would take 1.1 s, 0.5 s are left", retry_after_s=1
    )


def test_an_idle_replica_refuses_nobody() -> None:
    verdict = admit(load(left_s=0.01, is_idle=True), curve())

    assert isinstance(verdict, Admit)


def test_nothing_is_refused_before_anything_was_measured() -> None:
    assert isinstance(admit(load(rows_ahead=10**6), BatchCost()), Admit)
