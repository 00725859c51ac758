"""What a server without any cost of its own could reach: the engine's batch cost curve, one
replica, the production scheduler and Poisson arrivals, in virtual time.

A queue alone makes a p99 many times the unloaded latency (one server at 70 % load, constant
service: about five times), so a missed goal is read beside this floor.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import pairwise

from cluster.config.variant import BatchingConfig
from cluster.scheduling.scheduler import Scheduler
from cluster.simulation.one_replica import Arrival, simulate
from loadtests.schedule import arrival_times

NUM_ARRIVALS = 20_000


def batch_ms(curve_ms: Mapping[int, float], rows: int) -> float:
    """Milliseconds of a batch, straight between the measured sizes. Raises: ValueError for more
    rows than the largest."""
    if rows in curve_ms:
        return curve_ms[rows]
    for low, high in pairwise(sorted(curve_ms)):
        if low < rows < high:
            share = (rows - low) / (high - low)
            return curve_ms[low] + share * (curve_ms[high] - curve_ms[low])
    raise ValueError(f"a batch of {rows} rows; measured: {sorted(curve_ms)}")


def p99_floor_ms(curve_ms: Mapping[int, float], *, rate_per_s: float, seed: int = 0) -> float:
    """The p99 in milliseconds from arrival to the end of the batch, `NUM_ARRIVALS` arrivals."""
    times = arrival_times(
        "poisson", rate_per_s=rate_per_s, seconds=NUM_ARRIVALS / rate_per_s, seed=seed
    )
    scheduler: Scheduler[Arrival] = Scheduler(BatchingConfig(max_batch_size=max(curve_ms)))

    def cost_s(rows: int, _: Hashable) -> float:
        return batch_ms(curve_ms, rows) / 1e3

    ended = simulate((Arrival(time_s=time_s) for time_s in times), scheduler, cost_s)
    took_s = sorted(outcome.took_s for outcome in ended)
    return 1e3 * took_s[int(0.99 * len(took_s))]
