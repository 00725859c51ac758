from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from cluster.placement.search.candidate import Candidate
from cluster.placement.search.facts import Demand
from cluster.placement.search.groups import cuts_of, layouts
from cluster.placement.search.stages import Degrees
from cluster.simulation.cluster.fast import FastSimulator
from cluster.simulation.cluster.trace import draw_trace, merge
from tests.cluster.placement.search.making import cluster, demand, model


def on(degrees: Degrees, hosted: tuple[tuple[int, ...], ...], *demands: Demand) -> Candidate:
    topology = cluster(1, degrees.num_devices * len(hosted))
    layout = next(
        found for found in layouts(topology, topology.sites()) if found.groups[0].degrees == degrees
    )
    times = cuts_of(layout, demands).times()
    return Candidate(groups=layout.groups, hosted=hosted, times=times)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_device_is_an_m_d_1_queue(load: float) -> None:
    """Pollaczek and Khinchine: the mean wait is load / (2 (1 - load)) services."""
    asked = demand(facts=model(seconds=0.1), rate=load / 0.1, slo_s=inf)
    trace = draw_trace([asked], seconds=400_000 * 0.1 / load, random=np.random.default_rng(2))

    found = FastSimulator(trace)(on(Degrees(), ((0,),), asked))

    expected = 0.1 * (1 + load / (2 * (1 - load)))
    assert found.mean_latency_s == pytest.approx(expected, rel=0.02)
    assert found.busy_s[0] / (400_000 * 0.1 / load) == pytest.approx(load, rel=0.01)


def test_a_pipeline_is_the_same_queue_with_a_faster_pace_and_the_whole_way_on_top() -> None:
    asked = demand(facts=model(seconds=0.4), rate=5.0, slo_s=inf)
    trace = draw_trace([asked], seconds=40_000, random=np.random.default_rng(2))

    found = FastSimulator(trace)(on(Degrees(stages=4), ((0,),), asked))

    assert found.mean_latency_s == pytest.approx(0.4 + 0.1 * 0.5 / (2 * 0.5), rel=0.02)


def test_a_call_that_would_be_late_is_refused_and_costs_nobody_anything() -> None:
    asked = demand(facts=model(seconds=1.0), slo_s=1.5)
    trace = merge([np.array([0.0, 0.1, 0.2, 0.9])], [1.5])

    found = FastSimulator(trace)(on(Degrees(), ((0,),), asked))

    assert found.unserved == (2,)
    assert found.attainment == 0.5
    assert found.mean_latency_s == pytest.approx((1.0 + 1.1) / 2)


def test_a_call_goes_to_the_group_that_is_free_first() -> None:
    asked = demand(facts=model(seconds=1.0), slo_s=1.5)
    trace = merge([np.array([0.0, 0.1, 0.2])], [1.5])

    found = FastSimulator(trace)(on(Degrees(), ((0,), (0,)), asked))

    assert found.unserved == (1,)
    assert found.busy_s == (1.0, 1.0)


def test_a_model_without_a_place_is_answered_by_nobody() -> None:
    asked = (demand("a"), demand("b"))
    trace = merge([np.array([0.0]), np.array([0.0, 1.0])], [1.0, 1.0])

    found = FastSimulator(trace)(on(Degrees(), ((0,),), *asked))

    assert found.unserved == (0, 2)
    assert (found.attained(0), found.attained(1)) == (1.0, 0.0)


def test_what_a_request_costs_outside_the_devices_counts_against_its_slo() -> None:
    asked = demand(facts=model(seconds=1.0), slo_s=1.05)
    trace = merge([np.array([0.0])], [1.05])
    candidate = on(Degrees(), ((0,),), asked)

    assert FastSimulator(trace)(candidate).attainment == 1.0
    assert FastSimulator(trace, request_s=0.1)(replace(candidate)).attainment == 0.0
