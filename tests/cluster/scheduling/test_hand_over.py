"""Admission at a door: what would come too late is refused at once."""

from __future__ import annotations

from cluster.scheduling.admission import Admit, Reject
from cluster.scheduling.hand_over import HandOvers


def taking(seconds: float) -> HandOvers:
    found = HandOvers()
    for _ in range(50):
        found.observe(seconds)
    return found


def test_behind_full_windows_each_costs_a_hand_over() -> None:
    verdict = taking(0.1).admit(rows_ahead=32, rows_under_way=16, window_rows=16, left_s=0.36)

    assert isinstance(verdict, Admit)
    # Half of what is under way, two windows that wait, and its own.
    assert abs(verdict.estimated_s - 0.35) < 1e-9


def test_what_would_come_too_late_is_refused_with_when_to_come_back() -> None:
    verdict = taking(0.5).admit(rows_ahead=64, rows_under_way=16, window_rows=16, left_s=1.0)

    assert verdict == Reject(
        reason="64 rows are ahead: the answer would take 2.75 s, 1 s are left", retry_after_s=2
    )


def test_an_idle_model_refuses_nobody_whatever_it_took_once() -> None:
    verdict = taking(10.0).admit(rows_ahead=0, rows_under_way=0, window_rows=16, left_s=0.1)

    assert isinstance(verdict, Admit)


def test_nothing_is_refused_on_a_guess() -> None:
    verdict = HandOvers().admit(rows_ahead=64, rows_under_way=16, window_rows=16, left_s=0.001)

    assert isinstance(verdict, Admit)


def test_the_mean_follows_what_is_seen() -> None:
    found = taking(0.1)
    for _ in range(50):
        found.observe(0.3)

    assert abs(found.mean_s - 0.3) < 0.001
