from __future__ import annotations

import dataclasses
import math
import random

import pytest

from cluster.config.variant import BatchingConfig
from cluster.control.autoscaling.capacity import (
    FullBatch,
    full_batch,
    replicas_for,
    replicas_for_batches,
)
from cluster.simulation.service.replica import SimulatedCall, SimulatedVariant
from cluster.simulation.service.service import Service


def waits(num: int, rate: float, service_s: float, seed: int = 3) -> list[float]:
    """Of Poisson arrivals with exponential service in `num` servers, first come first served."""
    draw = random.Random(seed)
    free = [0.0] * num
    t, found = 0.0, []
    for _ in range(60_000):
        t += draw.expovariate(rate)
        earliest = min(range(num), key=free.__getitem__)
        begins = max(t, free[earliest])
        free[earliest] = begins + draw.expovariate(1 / service_s)
        found.append(begins - t)
    return found


@pytest.mark.parametrize(("rate", "wait_s"), [(8.0, 0.2), (40.0, 0.1), (95.0, 0.05)])
def test_the_number_keeps_the_wait_and_one_less_does_not(rate: float, wait_s: float) -> None:
    num = replicas_for(rate=rate, service_s=0.1, wait_s=wait_s, miss_share=0.01, variability=1.0)

    enough = [w > wait_s for w in waits(num, rate, 0.1)]
    one_less = [w > wait_s for w in waits(num - 1, rate, 0.1)]
    assert sum(enough) / len(enough) < 0.012
    assert sum(one_less) / len(one_less) > 0.01


def test_nothing_asked_needs_nothing_and_bursts_need_more() -> None:
    def num(rate: float, variability: float) -> int:
        return replicas_for(
            rate=rate, service_s=0.1, wait_s=0.3, miss_share=0.01, variability=variability
        )

    assert num(0.0, 1.0) == 0
    assert num(20, 0.5) <= num(20, 1.0) < num(20, 8.0)


@pytest.mark.parametrize(
    ("batch_s", "limit_s", "found"),
    [
        ({1: 0.1, 16: 0.175}, 0.25, FullBatch(rows=16, seconds=0.175)),
        ({1: 0.1, 16: 0.175}, 0.15, FullBatch(rows=11, seconds=0.15)),
        ({1: 0.1, 4: 0.1, 16: 1.0}, 0.25, FullBatch(rows=6, seconds=0.25)),
        ({1: 0.1, 16: 0.175}, 0.05, None),
        ({1: 0.1, 16: 1.7}, 2.0, None),
        ({1: 0.1}, 1.0, None),
        ({}, 1.0, None),
    ],
)
def test_the_largest_batch_that_may_be_waited_for(
    batch_s: dict[int, float], limit_s: float, found: FullBatch | None
) -> None:
    batch = full_batch(batch_s, limit_s)

    assert (batch is None) == (found is None)
    if batch is not None and found is not None:
        assert batch.rows == found.rows
        assert batch.seconds == pytest.approx(found.seconds)


@pytest.mark.parametrize("rate", [60.0, 200.0, 900.0])
def test_so_many_replicas_answer_batches_in_time(rate: float) -> None:
    """By the scheduler of production in virtual time: 0.1 s alone, 0.005 s more for each row."""
    engine = SimulatedVariant(
        name="m",
        first_row_s=0.1,
        next_row_s=0.005,
        batching=BatchingConfig(max_batch_size=16, max_queue_size=100_000),
    )
    batch = full_batch({1: engine.batch_s(1), 16: engine.batch_s(16)}, 0.25)
    assert batch is not None
    num = replicas_for_batches(rate=rate, batch=batch, miss_share=0.01, dispersion=1.0)

    def attained(num_replicas: int) -> float:
        draw, now_s, calls = random.Random(7), 0.0, []
        while now_s < 60:
            now_s += draw.expovariate(rate)
            calls.append(SimulatedCall(arrives_s=now_s))
        many = dataclasses.replace(engine, num_replicas=num_replicas)
        return Service([many], slo_s=0.5).run(calls)["m"].attainment

    assert attained(num) > 0.99
    assert attained(math.floor(rate * batch.row_s * 0.95)) < 0.9 or num == 1
    one_by_one = replicas_for(
        rate=rate, service_s=0.1, wait_s=0.35, miss_share=0.01, variability=0.75
    )
    assert num < one_by_one / 3
