from __future__ import annotations

import numpy as np
import pytest

from cluster.simulation.cluster.trace import draw_trace, merge
from loadtests.placement.real import HOSTED, Answer, compared, demands, only_ours, simulated


def test_late_and_refused_calls_are_missed_calls() -> None:
    trace = merge([np.array([0.0, 1.0]), np.array([0.5, 2.0])], [0.4, 0.4])
    answers = [
        Answer(status=200, took_s=0.21),
        Answer(status=200, took_s=0.41),
        Answer(status=503, took_s=0.01),
        Answer(status=200, took_s=0.3),
    ]

    row = compared(2.0, trace, demands(0.4, 0.2), answers, 0.0)

    assert (row.real, row.late, row.refused) == (0.5, 1, 1)
    assert row.simulated == 1.0
    assert row.difference_points == pytest.approx(50.0)


def test_both_simulators_run_the_calls_on_the_replicas_of_the_server() -> None:
    args: dict[str, object] = {}
    only_ours(args)
    variants = args["variants"]
    assert isinstance(variants, dict)
    assert sum(variant["replicas"] for variant in variants.values()) == len(HOSTED)

    wanted = demands(0.6, 0.2)
    trace = draw_trace(wanted, seconds=300, random=np.random.default_rng(1))
    production, fast = simulated(trace, wanted, 0.0)

    assert 0.5 < production < 1.0
    assert production == pytest.approx(fast, abs=0.03)
