from __future__ import annotations

from math import inf

import numpy as np
import pytest

from cluster.config.variant import BatchingConfig
from cluster.placement.search.candidate import Candidate, Evaluation
from cluster.placement.search.facts import Demand
from cluster.placement.search.groups import cuts_of, layouts
from cluster.placement.search.stages import Degrees
from cluster.simulation.cluster.production import ONE_BY_ONE, ProductionSimulator
from cluster.simulation.cluster.trace import Trace, draw_trace, merge
from tests.cluster.placement.search.making import cluster, demand, model


def served(
    trace: Trace,
    asked: Demand,
    *,
    degrees: Degrees | None = None,
    groups: int = 1,
    batching: BatchingConfig = ONE_BY_ONE,
    slope: float = 1.0,
) -> Evaluation:
    shape = degrees or Degrees()
    topology = cluster(1, shape.num_devices * groups)
    layout = next(
        found for found in layouts(topology, topology.sites()) if found.groups[0].degrees == shape
    )
    cuts = cuts_of(layout, (asked,))
    hosted = ((0,),) * groups
    candidate = Candidate(groups=layout.groups, hosted=hosted, times=cuts.times())
    simulator = ProductionSimulator(trace, lambda _: cuts, batching=batching, slope=slope)
    return simulator(candidate)


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_the_production_scheduler_one_by_one_is_an_m_d_1_queue(load: float) -> None:
    asked = demand(facts=model(seconds=0.1), rate=load / 0.1, slo_s=inf)
    trace = draw_trace([asked], seconds=60_000 * 0.1 / load, random=np.random.default_rng(4))

    found = served(trace, asked)

    assert found.mean_latency_s == pytest.approx(0.1 * (1 + load / (2 * (1 - load))), rel=0.03)
    assert found.attainment == 1.0


def test_stages_overlap_and_keep_their_order() -> None:
    asked = demand(facts=model(seconds=0.4), slo_s=inf)
    trace = merge([np.zeros(5)], [inf])

    found = served(trace, asked, degrees=Degrees(stages=4))

    # The n-th leaves the last stage n paces after the first one did.
    assert found.mean_latency_s == pytest.approx(0.4 + 0.1 * (0 + 1 + 2 + 3 + 4) / 5)


def test_hopeless_calls_are_refused_and_the_rest_is_in_time() -> None:
    asked = demand(facts=model(seconds=1.0), slo_s=2.5)
    trace = merge([np.array([0.0, 0.1, 0.2, 0.3])], [2.5])

    found = served(trace, asked)

    assert found.unserved == (2,)


def test_batches_serve_what_one_by_one_cannot() -> None:
    asked = demand(facts=model(seconds=0.1), rate=20.0, slo_s=1.0)
    trace = draw_trace([asked], seconds=200, random=np.random.default_rng(4))
    batching = BatchingConfig(max_batch_size=8)

    alone = served(trace, asked)
    together = served(trace, asked, batching=batching, slope=0.1)

    assert alone.attainment < 0.7
    assert together.attainment > 0.99
