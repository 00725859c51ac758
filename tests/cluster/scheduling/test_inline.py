"""What is run on the spot: only what was measured to be cheaper than a hand-over."""

from __future__ import annotations

from cluster.config.variant import BatchingConfig
from cluster.scheduling.decision import Queued
from cluster.scheduling.inline import NUM_ELSEWHERE, UndisturbedCost
from cluster.scheduling.scheduler import Scheduler


def cost(*points: tuple[int, float]) -> UndisturbedCost:
    found = UndisturbedCost()
    for rows, seconds in points:
        found.observe(rows, seconds)
    return found


def test_a_cheap_batch_is_told_from_a_dear_one() -> None:
    known = cost((1, 0.00002), (8, 0.0001), (64, 0.0005))

    assert known.is_cheap(1)
    assert known.is_cheap(5)
    assert not known.is_cheap(9)
    assert not known.is_cheap(64)


def test_sizes_that_were_never_measured_are_not_cheap() -> None:
    assert not UndisturbedCost().is_cheap(1)
    assert not cost((1, 0.00002)).is_cheap(2)


def test_interruptions_are_not_believed_and_a_change_is() -> None:
    known = cost((4, 0.00005), *[(4, 0.005), (4, 0.00005)] * 20)
    assert known.is_cheap(4)

    for _ in range(100):
        known.observe(4, 0.001)
    assert not known.is_cheap(4)

    for _ in range(5):
        known.observe(4, 0.00005)
    assert known.is_cheap(4)


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


def test_what_waits_without_computing_is_not_run_in_the_loop() -> None:
    scheduler = warm(max_batch_size=1)

    scheduler.ran(1, 0.2, cpu_s=0.00005)
    assert scheduler.runs_now(1)  # It may have been interrupted.
    scheduler.push(Queued(payload="", rows=1, arrived_s=0.0))
    scheduler.decide(0.0)
    scheduler.finished(0.2, cpu_s=0.00005, loop_s=0.2)
    assert not scheduler.runs_now(1)

    for _ in range(NUM_ELSEWHERE):
        assert not scheduler.is_cheap(1)
        scheduler.push(Queued(payload="", rows=1, arrived_s=0.0))
        scheduler.decide(0.0)
        scheduler.finished(0.2, cpu_s=0.00005)
    assert scheduler.is_cheap(1)

    scheduler.ran(1, 0.2, cpu_s=0.00005)
    assert not scheduler.is_cheap(1)


def test_a_batch_that_held_the_loop_up_once_was_interrupted() -> None:
    scheduler = warm(max_batch_size=1)
    for _ in range(20):
        scheduler.ran(1, 0.05, cpu_s=0.00005)
        scheduler.ran(1, 0.0001, cpu_s=0.00005)

    assert scheduler.is_cheap(1)
