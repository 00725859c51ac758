"""When a replica's process takes too much, and what is said of it."""

from __future__ import annotations

from cluster.config.variant import ProcessLimits
from cluster.control.process_limits import MIB, LimitJudge, ProcessUsage


def usage(at_s: float, *, mb: float = 0.0, cpu_s: float = 0.0) -> ProcessUsage:
    return ProcessUsage(at_s=at_s, resident_bytes=int(mb * MIB), cpu_s=cpu_s)


def test_without_limits_nothing_is_too_much() -> None:
    assert LimitJudge(ProcessLimits()).exceeded(usage(0, mb=10**6, cpu_s=10**6)) == ""


def test_memory_is_judged_at_once() -> None:
    judge = LimitJudge(ProcessLimits(memory_limit_mb=100))

    assert judge.exceeded(usage(0, mb=100)) == ""
    assert judge.exceeded(usage(0.25, mb=101)) == (
        "it holds 101 MiB of memory; limits.memory_limit_mb is 100"
    )


def test_cores_are_judged_as_the_mean_of_ten_seconds() -> None:
    judge = LimitJudge(ProcessLimits(cpu_limit=1.5))

    # Five seconds of two cores are no more than ten of one.
    assert [judge.exceeded(usage(t, cpu_s=min(2 * t, 10))) for t in range(21)] == [""] * 21


def test_more_cores_for_ten_seconds_are_too_much() -> None:
    judge = LimitJudge(ProcessLimits(cpu_limit=1.5))

    said = [judge.exceeded(usage(t, cpu_s=2 * t)) for t in range(11)]

    assert said[:10] == [""] * 10
    assert said[10] == "it used 2.00 cores for 10 s; limits.cpu_limit is 1.5"


def test_the_window_moves_on() -> None:
    judge = LimitJudge(ProcessLimits(cpu_limit=1.5))
    quiet = [judge.exceeded(usage(t, cpu_s=0)) for t in range(100)]

    busy = [judge.exceeded(usage(100 + t, cpu_s=2 * t)) for t in range(12)]

    assert set(quiet) == {""}
    assert next(t for t, said in enumerate(busy) if said) == 8
