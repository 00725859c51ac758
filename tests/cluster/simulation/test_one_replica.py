"""The production scheduler under load, in virtual time.

SQUADRON_ARRIVALS=1000000 makes the same tests long.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator

import pytest

from cluster.config.variant import BatchingConfig
from cluster.scheduling.scheduler import Scheduler
from cluster.simulation.one_replica import Arrival, Outcome, simulate

NUM_ARRIVALS = int(os.environ.get("SQUADRON_ARRIVALS", "100000"))

BATCH = 16
CAPACITY_PER_S = BATCH / (0.005 + 0.0005 * BATCH)
"""Of the engine below with full batches: 1,231 rows a second."""


def engine(seed: int = 0, noise: float = 0.1) -> Callable[[int, Hashable], float]:
    """5 ms a batch and 0.5 ms a row, up to `noise` more or less."""
    draw = random.Random(seed)
    return lambda rows, _: (0.005 + 0.0005 * rows) * (1 + noise * (2 * draw.random() - 1))


def poisson(
    rate_per_s: float, count: int, *, seed: int = 1, **facts: Callable[[random.Random], object]
) -> Iterator[Arrival]:
    """Arrivals with `facts` drawn for each."""
    draw = random.Random(seed)
    now_s = 0.0
    for _ in range(count):
        now_s += draw.expovariate(rate_per_s)
        drawn = {name: choose(draw) for name, choose in facts.items()}
        yield Arrival(time_s=now_s, **drawn)  # type: ignore[arg-type]


def scheduler(**batching: object) -> Scheduler[Arrival]:
    return Scheduler(BatchingConfig.model_validate({"max_batch_size": BATCH, **batching}))


def goodput_per_s(outcomes: list[Outcome]) -> float:
    rows = sum(outcome.arrival.rows for outcome in outcomes if outcome.kind == "in_time")
    return rows / outcomes[-1].ended_s


def run(load: float, count: int, timeout_s: float, **batching: object) -> list[Outcome]:
    """`load`: offered, as a share of the capacity."""
    arrivals = poisson(load * CAPACITY_PER_S, count, timeout_s=lambda _: timeout_s)
    return list(simulate(arrivals, scheduler(**batching), engine()))


@pytest.mark.parametrize("timeout_s", [0.04, 0.1, 1.0])
def test_goodput_at_three_times_the_capacity_stays_at_its_peak(timeout_s: float) -> None:
    loads = (0.7, 1.0, 1.3, 2.0, 3.0)
    found = {load: goodput_per_s(run(load, NUM_ARRIVALS // 15, timeout_s)) for load in loads}

    assert found[3.0] >= 0.95 * max(found.values()), found
    assert max(found.values()) >= (0.85 if timeout_s < 0.1 else 0.95) * CAPACITY_PER_S, found


def test_an_engine_that_was_slow_for_a_while_is_not_refused_for_good() -> None:
    """One request a second after a spell in which everything took a hundred times as long."""
    usual, num_run = engine(), 0

    def slow_at_first(rows: int, lane: Hashable) -> float:
        nonlocal num_run
        num_run += 1
        return usual(rows, lane) * (1 if num_run > 5 else 100)

    arrivals = [Arrival(time_s=float(second), timeout_s=0.1) for second in range(200)]
    outcomes = list(simulate(arrivals, scheduler(), slow_at_first))
    kinds = [each.kind for each in sorted(outcomes, key=lambda each: each.arrival.time_s)]

    spell = next(index for index, kind in enumerate(kinds) if kind == "in_time")
    assert set(kinds[spell:]) == {"in_time"}
    assert spell < 20


def test_an_idle_engine_that_was_slow_once_is_tried_again_soon() -> None:
    """A thousand batches of 10 ms, one of 2 s, then a request a second with 0.4 s each."""
    found = scheduler()
    for _ in range(1000):
        found.ran(1, 0.010, 0.010)
    found.ran(1, 2.0, 2.0)

    arrivals = [Arrival(time_s=10.0 + second, timeout_s=0.4) for second in range(60)]
    outcomes = list(simulate(arrivals, found, lambda rows, lane: 0.010))

    assert sum(each.kind != "in_time" for each in outcomes) <= 3


def test_a_model_that_is_too_slow_for_its_callers_works_little_for_nobody() -> None:
    """Each takes 2 s and has 0.4 s: a third of the time is the most that may be tried in vain."""
    found = scheduler()
    found.ran(1, 2.0, 2.0)

    arrivals = [Arrival(time_s=index * 0.1, timeout_s=0.4) for index in range(6000)]
    outcomes = list(simulate(arrivals, found, lambda rows, lane: 2.0 * rows))

    num_run = sum(each.kind == "late" for each in outcomes)
    assert num_run * 2.0 <= 0.6 * 600


def test_hardly_anything_is_computed_in_vain_under_overload() -> None:
    kinds = Counter(outcome.kind for outcome in run(3.0, NUM_ARRIVALS, 0.1))

    assert kinds.total() == NUM_ARRIVALS
    assert kinds["late"] <= 0.01 * kinds["in_time"], kinds
    # Nearly all that cannot be served is told so at once, not after it has waited.
    assert kinds["dropped"] <= 0.02 * kinds["refused"], kinds


def test_the_first_level_does_not_feel_an_overload_of_the_last() -> None:
    arrivals = poisson(
        3 * CAPACITY_PER_S,
        NUM_ARRIVALS,
        timeout_s=lambda _: 0.1,
        priority=lambda draw: draw.choices((1, 2, 3), (1, 1, 8))[0],
    )
    chosen = scheduler(priority_levels=3, default_priority_level=2)
    outcomes = list(simulate(arrivals, chosen, engine()))

    served = {
        level: [o.kind == "in_time" for o in outcomes if o.arrival.priority == level]
        for level in (1, 2, 3)
    }
    shares = {level: sum(kinds) / len(kinds) for level, kinds in served.items()}
    assert shares[1] >= 0.999, shares
    assert shares[2] >= 0.99, shares
    assert shares[3] < 0.25, shares
    assert goodput_per_s(outcomes) >= 0.95 * CAPACITY_PER_S


def test_a_flood_takes_nothing_from_tenants_that_ask_for_less_than_their_share() -> None:
    weights = {"flood": 20, "greedy": 8, "modest": 1, "small": 1}
    arrivals = poisson(
        3 * CAPACITY_PER_S,
        NUM_ARRIVALS,
        timeout_s=lambda _: 0.2,
        tenant=lambda draw: draw.choices(list(weights), list(weights.values()))[0],
    )
    outcomes = list(simulate(arrivals, scheduler(), engine()))

    asked = Counter(o.arrival.tenant for o in outcomes)
    served = Counter(o.arrival.tenant for o in outcomes if o.kind == "in_time")
    # A tenth of the capacity each: all of it is served. The others share what is left evenly.
    assert served["modest"] >= 0.99 * asked["modest"]
    assert served["small"] >= 0.99 * asked["small"]
    assert served["flood"] == pytest.approx(served["greedy"], rel=0.05)
    assert goodput_per_s(outcomes) >= 0.95 * CAPACITY_PER_S


def test_no_bucket_starves_under_an_overload_of_another() -> None:
    arrivals = poisson(
        2 * CAPACITY_PER_S,
        NUM_ARRIVALS // 4,
        timeout_s=lambda _: 0.3,
        shape_key=lambda draw: draw.choices((32, 128), (19, 1))[0],
    )
    outcomes = list(simulate(arrivals, scheduler(buckets=[32, 128]), engine()))

    for bucket in (32, 128):
        mine = [o for o in outcomes if o.arrival.shape_key == bucket and o.kind != "refused"]
        assert sum(o.kind == "in_time" for o in mine) >= 0.95 * len(mine)
    assert all(o.kind != "late" or o.took_s < 0.35 for o in outcomes)


def test_adaptive_batches_keep_a_target_that_the_largest_batch_would_miss() -> None:
    arrivals = list(poisson(0.4 * CAPACITY_PER_S, NUM_ARRIVALS // 10, timeout_s=lambda _: 10.0))
    chosen = scheduler(mode="adaptive", latency_target_ms=20, max_batch_size=64)
    outcomes = list(simulate(arrivals, chosen, engine()))

    settled = sorted(o.took_s for o in outcomes[len(outcomes) // 4 :])
    assert settled[int(0.99 * len(settled))] <= 0.025
    limit = chosen.limits()[None]
    assert limit.rows <= 12, limit


def test_adaptive_switches_batching_off_where_a_row_costs_the_same_in_any_batch() -> None:
    arrivals = poisson(450, NUM_ARRIVALS // 10, timeout_s=lambda _: 10.0)
    chosen = scheduler(mode="adaptive")
    outcomes = list(simulate(arrivals, chosen, lambda rows, _: 0.002 * rows))

    limit = chosen.limits()[None]
    assert (limit.rows, limit.is_batching) == (1, False)
    assert limit.reason == ("a row alone takes 2 ms, at best 2 ms: batching only adds latency")
    assert sum(o.batch_rows > 1 for o in outcomes[-1000:]) <= 100
