"""What is run on the spot: only what was measured to be cheaper than a hand-over."""

from __future__ import annotations

from cluster.config.variant import BatchingConfig
from cluster.scheduling.batch_cost import BatchCost
from cluster.scheduling.decision import Queued
from cluster.scheduling.inline import is_inline
from cluster.scheduling.scheduler import Scheduler


def curve(*points: tuple[int, float]) -> BatchCost:
    found = BatchCost()
    for rows, seconds in points:
        found.observe(rows, seconds)
    return found


def test_a_cheap_batch_is_inline_and_a_dear_one_is_not() -> None:
    known = curve((1, 0.00002), (64, 0.0005))

    assert is_inline(known, 1)
    assert is_inline(known, 8)
    assert not is_inline(known, 64)


def test_sizes_that_were_never_measured_are_not_inline() -> None:
    assert not is_inline(BatchCost(), 1)
    assert not is_inline(curve((1, 0.00002)), 2)


def warm(**batching: object) -> Scheduler[str]:
    found: Scheduler[str] = Scheduler(BatchingConfig.model_validate(batching))
    for rows in (1, found.policy.max_batch_size):
        found.ran(rows, 0.00005, cpu_s=0.00005)
    return found


def test_an_idle_replica_runs_a_cheap_batch_on_the_spot() -> None:
    assert warm(max_batch_size=8).runs_now(8)
    assert not warm(max_batch_size=8).runs_now(9)


def test_a_batch_that_should_wait_for_company_queues() -> None:
    assert not warm(max_batch_size=8, max_queue_delay_us=100).runs_now(1)


def test_nothing_overtakes_what_waits_or_runs() -> None:
    scheduler = warm(max_batch_size=8)
    scheduler.push(Queued(payload="first", rows=1, arrived_s=0.0))
    assert not scheduler.runs_now(1)

    scheduler.decide(0.0)
    assert not scheduler.runs_now(1)

    scheduler.finished(0.001, cpu_s=0.00005)
    assert scheduler.runs_now(1)


def test_waiting_for_pythons_lock_does_not_make_a_batch_dear() -> None:
    scheduler = warm(max_batch_size=8)
    for _ in range(20):
        scheduler.push(Queued(payload="", rows=1, arrived_s=0.0))
        scheduler.decide(0.0)
        scheduler.finished(0.005, cpu_s=0.00005)

    assert scheduler.runs_now(1)
