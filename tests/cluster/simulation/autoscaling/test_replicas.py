from __future__ import annotations

from itertools import pairwise

import pytest

from cluster.control.autoscaling.load import VariantLoad
from cluster.simulation.autoscaling import traces
from cluster.simulation.autoscaling.compare import all_traces, simulate
from cluster.simulation.autoscaling.replicas import Replicas, Result, Workload


class Fixed:
    """What a list of times says."""

    period_s = 1.0

    def __init__(self, *changes: tuple[float, int]) -> None:
        self._changes = changes

    def decide(self, load: VariantLoad, num_ongoing: int) -> int:
        return [num for at_s, num in self._changes if load.at_s >= at_s][-1]


def run(policy: Fixed, arrivals: list[float], *, service_s: float = 1.0) -> Result:
    workload = Workload(
        arrivals=arrivals, service_s=lambda index: service_s, startup_s=5.0, slo_s=1.5
    )
    return Replicas(workload, num_first=1, counts_from_s=0.0).run(policy)


def test_requests_wait_in_order_for_a_free_replica() -> None:
    found = run(Fixed((0, 1)), [0.0, 0.1, 0.2, 10.0])

    assert (found.num_requests, found.num_missed) == (4, 2)


def test_a_replica_answers_after_its_start_and_is_paid_for_from_the_decision() -> None:
    early = run(Fixed((0, 1), (3, 2)), [10.0, 10.01])
    late = run(Fixed((0, 1), (7, 2)), [10.0, 10.01])

    assert (early.num_missed, late.num_missed) == (0, 1)
    assert early.replica_s == pytest.approx(3 * 1 + 8 * 2)


def test_a_replica_that_is_to_go_finishes_its_request() -> None:
    found = run(Fixed((0, 1), (2, 0)), [1.5], service_s=4.0)

    assert found.num_requests == 1
    assert found.replica_s == pytest.approx(5.0)


def test_md1_waits_are_those_of_theory() -> None:
    """Pollaczek and Khinchine: the mean wait at load 0.8 is 0.8 / (2 * 0.2) = 2 service times, so
    about 0.335 of the requests take longer than 3 of them (simulated: 0.30 to 0.36)."""
    arrivals = traces.step(5, low=0.8, high=0.8, at_s=1, until_s=60_000)
    workload = Workload(arrivals=arrivals, service_s=lambda i: 1.0, startup_s=1.0, slo_s=3.0)

    found = Replicas(workload, num_first=1, counts_from_s=0.0).run(Fixed((0, 1)))

    assert 0.29 < found.miss_share < 0.37


def test_bursts_have_the_variation_they_are_asked_for() -> None:
    times = traces.bursty(3, rate=20, until_s=20_000)
    gaps = [b - a for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)

    assert mean == pytest.approx(0.05, rel=0.05)
    assert variance**0.5 / mean == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_half_of_rays_misses_at_no_more_replica_seconds(index: int) -> None:
    trace = all_traces(seed=11)[index]

    ours, rays = simulate(trace, "ours", 11), simulate(trace, "rays", 11)

    assert ours.num_requests == rays.num_requests
    assert ours.num_missed < rays.num_missed / 2
    assert ours.replica_s < rays.replica_s
