"""Times of several things that compute the same, measured in one interleaved run.

Other work on the machine hits all of them alike; a before and an after minutes apart differ by up
to 37 % from the clock alone (our measurement). CPU time moved by 3 to 23 % where wall time moved 2
to 8 times, so with one thread ratios are of CPU time.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from cluster.optimization.gate.intervals import Interval, bootstrap

MIN_FOR_P99 = 100
"""Below it a p99 is the maximum under another name."""


@dataclass(slots=True, kw_only=True)
class Timing:
    """Milliseconds of single calls, in the order of the rounds."""

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    round_wall_ms: list[float] = field(default_factory=list)
    round_cpu_ms: list[float] = field(default_factory=list)

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.wall_ms)

    @property
    def p99_ms(self) -> float | None:
        """None with fewer than 100 calls."""
        if len(self.wall_ms) < MIN_FOR_P99:
            return None
        return sorted(self.wall_ms)[math.ceil(0.99 * len(self.wall_ms)) - 1]

    @property
    def best_ms(self) -> float:
        return min(self.wall_ms)

    @property
    def cpu_p50_ms(self) -> float:
        return statistics.median(self.cpu_ms)

    def as_dict(self) -> dict[str, float | int | None]:
        return {
            "latency_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "best_ms": self.best_ms,
            "cpu_ms": self.cpu_p50_ms,
            "num_calls": len(self.wall_ms),
        }


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    num_rounds: int = 10,
    round_s: float = 0.15,
    warm_up: int = 2,
    seed: int = 0,
    done: Callable[[], None] = lambda: None,
) -> dict[str, Timing]:
    """Each round calls each of `calls` for about `round_s`, in a fresh random order.

    `done` is called after every round.
    """
    timings = {name: Timing() for name in calls}
    order = list(calls)
    shuffle = Random(seed)
    for call in calls.values():
        for _ in range(warm_up):
            call()
    for _ in range(num_rounds):
        shuffle.shuffle(order)
        for name in order:
            _one_round(calls[name], timings[name], round_s)
        done()
    return timings


def _one_round(call: Callable[[], object], timing: Timing, round_s: float) -> None:
    walls: list[float] = []
    cpus: list[float] = []
    end_s = time.perf_counter() + round_s
    # The first call finds the caches full of the others' weights; callers in a row are the case.
    call()
    while not walls or time.perf_counter() < end_s:
        started_s, cpu_s = time.perf_counter(), time.process_time()
        call()
        cpus.append(1e3 * (time.process_time() - cpu_s))
        walls.append(1e3 * (time.perf_counter() - started_s))
    timing.wall_ms += walls
    timing.cpu_ms += cpus
    timing.round_wall_ms.append(statistics.median(walls))
    timing.round_cpu_ms.append(statistics.median(cpus))


def speedup(new: Timing, old: Timing, *, by_cpu: bool) -> Interval:
    """How many times faster `new` is: median of the rounds' ratios with its bootstrap interval."""
    if by_cpu:
        pairs = zip(old.round_cpu_ms, new.round_cpu_ms, strict=True)
    else:
        pairs = zip(old.round_wall_ms, new.round_wall_ms, strict=True)
    # A call shorter than the clock's step counts as one step (1 us).
    logs = [math.log(max(before, 1e-3) / max(after, 1e-3)) for before, after in pairs]
    found = bootstrap(logs, statistics.median)
    return Interval(value=math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high))
