from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.config.variant import BatchingConfig
from cluster.simulation.autoscaling import traces
from cluster.simulation.autoscaling.compare import Trace
from cluster.simulation.autoscaling.replicas import Replicas, Workload
from cluster.simulation.service.compare import simulate
from cluster.simulation.service.policies import Ours
from cluster.simulation.service.replica import SimulatedCall, SimulatedVariant
from cluster.simulation.service.service import Service, Tally

ONE_BY_ONE = BatchingConfig(mode="off", max_queue_size=100_000)
BATCHES = BatchingConfig(max_batch_size=16, max_queue_size=100_000)


def variant(
    name: str = "a", batching: BatchingConfig = ONE_BY_ONE, **more: object
) -> SimulatedVariant:
    return SimulatedVariant(
        name=name,
        **{"first_row_s": 0.1, "next_row_s": 0.1, "batching": batching, **more},  # type: ignore[arg-type]
    )


def calls(times: Sequence[float], **more: object) -> list[SimulatedCall]:
    return [SimulatedCall(arrives_s=t, **more) for t in times]  # type: ignore[arg-type]


def poisson(rate: float, until_s: float, seed: int = 3) -> list[float]:
    return traces.step(seed, low=rate, high=rate, at_s=1, until_s=until_s)


class Fixed:
    """What nobody decides well: the same number, over and over."""

    period_s = 1.0

    def __init__(self, num: int) -> None:
        self._num = num

    def decide(self, load: object, num_ongoing: int) -> int:
        return self._num


@pytest.mark.parametrize("num", [1, 3])
def test_without_batches_it_is_the_plain_queue(num: int) -> None:
    """Another simulator of ours, written apart, with one queue. With one replica they are the same
    queue; with several a door must guess which will be free first, and may be a little worse."""
    times = poisson(8.0 * num, 2000)
    plain = Replicas(
        Workload(arrivals=times, service_s=lambda n: 0.1, startup_s=1.0, slo_s=0.3),
        num_first=num,
        counts_from_s=0.0,
    ).run(Fixed(num))

    found = Service([variant(num_replicas=num)], slo_s=0.3).run(calls(times))["a"]

    assert found.num_calls == plain.num_requests
    assert found.late == pytest.approx(plain.num_missed, rel=0.001 if num == 1 else 0.15)


def test_batches_carry_what_single_calls_cannot() -> None:
    """30 calls a second, each 0.1 s alone and 0.01 s in company."""
    times = poisson(30, 300)

    def attained(batching: BatchingConfig) -> Tally:
        return Service([variant(batching=batching, next_row_s=0.01)], slo_s=0.5).run(calls(times))[
            "a"
        ]

    alone, together = attained(ONE_BY_ONE), attained(BATCHES)

    assert alone.attainment < 0.1
    assert together.attainment > 0.99
    assert 2 < together.mean_rows < 16


def test_at_three_times_the_capacity_admission_keeps_goodput_flat() -> None:
    def in_time(rate: float) -> int:
        offered = calls(poisson(rate, 200), deadline_s=0.5)
        return Service([variant()], slo_s=0.5).run(offered)["a"].in_time

    assert in_time(30) > 0.95 * in_time(10)


def test_arms_get_their_share_and_users_stay() -> None:
    both = [variant("a", num_replicas=50), variant("b", num_replicas=50)]
    draw = random.Random(5)
    offered = [
        SimulatedCall(arrives_s=t, key=f"user{draw.randrange(4000)}") for t in poisson(50, 400)
    ]

    found = Service(both, slo_s=1.0, arms={"a": 3.0, "b": 1.0}).run(offered)

    share = found["b"].num_calls / len(offered)
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 4000))


def test_the_policy_sees_what_batching_does() -> None:
    """The same load and policy: an engine that batches well needs fewer replicas."""
    config = AutoscalingConfig(max_replicas=20, slo_ms=500, startup_s=5.0)
    times = traces.step(2, low=5, high=60, at_s=60, until_s=600)

    def run(next_row_s: float) -> Tally:
        scaled = variant(batching=BATCHES, next_row_s=next_row_s, startup_s=5.0, scaling=config)
        return Service([scaled], slo_s=0.5, policy=Ours([scaled])).run(calls(times))["a"]

    steep, flat = run(0.1), run(0.005)

    assert flat.attainment > 0.97
    assert steep.attainment > 0.9
    assert flat.replica_s < 0.6 * steep.replica_s


def test_calls_to_a_sleeping_variant_are_held_until_it_has_started() -> None:
    config = AutoscalingConfig(min_replicas=0, max_replicas=2, startup_s=4.0, slo_ms=10_000)
    asleep = variant(num_replicas=0, startup_s=4.0, scaling=config)

    found = Service([asleep], slo_s=10.0, policy=Ours([asleep])).run(calls([10.0, 10.1]))["a"]

    assert (found.in_time, found.refused, found.expired) == (2, 0, 0)


def test_a_call_whose_deadline_ends_before_the_start_is_given_up() -> None:
    config = AutoscalingConfig(min_replicas=0, max_replicas=2, startup_s=4.0, slo_ms=10_000)
    asleep = variant(num_replicas=0, startup_s=4.0, scaling=config)
    offered = calls([10.0], deadline_s=2.0) + calls([10.1])

    found = Service([asleep], slo_s=10.0, policy=Ours([asleep])).run(offered)["a"]

    assert (found.in_time, found.expired) == (1, 1)


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0, 2), max_size=60),
    num=st.integers(0, 3),
    batch=st.integers(1, 8),
    delay_us=st.integers(0, 200_000),
    deadline_s=st.sampled_from([0.05, 0.4, math.inf]),
    most=st.integers(1, 4),
    rows=st.integers(1, 3),
)
def test_every_call_ends_once(
    gaps: list[float], num: int, batch: int, delay_us: int, deadline_s: float, most: int, rows: int
) -> None:
    rows = min(rows, batch)
    config = AutoscalingConfig(
        min_replicas=0,
        initial_replicas=min(num, most),
        max_replicas=most,
        startup_s=1.0,
        slo_ms=500,
        downscale_delay_s=1.0,
    )
    scaled = variant(
        batching=BatchingConfig(max_batch_size=batch, max_queue_delay_us=delay_us),
        num_replicas=min(num, most),
        startup_s=1.0,
        scaling=config,
    )
    times, now_s = [], 0.0
    for gap in gaps:
        now_s += gap
        times.append(now_s)

    found = Service([scaled], slo_s=0.5, policy=Ours([scaled])).run(
        calls(times, deadline_s=deadline_s, rows=rows)
    )["a"]

    assert found.num_calls == len(times)
    answered = sum(n * count for n, count in found.batch_rows.items())
    assert answered == rows * (found.in_time + found.late)
    assert max(found.batch_rows, default=0) <= batch
    if deadline_s < 0.5:
        assert found.late == 0


def test_a_policy_that_knows_the_cost_of_batches_takes_fewer_replicas() -> None:
    trace = Trace(name="step", arrivals=traces.step(11, low=5, high=60, at_s=60, until_s=400))

    blind, ours = simulate(trace, "blind"), simulate(trace, "ours")

    assert ours.replica_s < 0.7 * blind.replica_s
    assert ours.attainment > blind.attainment - 0.02
