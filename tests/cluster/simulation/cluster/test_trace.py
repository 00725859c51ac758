from __future__ import annotations

import numpy as np
import pytest

from cluster.simulation.cluster.trace import draw_trace, gamma_times
from tests.cluster.placement.search.making import demand


@pytest.mark.parametrize("cv", [0.5, 1.0, 4.0])
def test_gaps_have_the_rate_and_burstiness_that_were_asked_for(cv: float) -> None:
    times = gamma_times(10.0, cv, 20_000.0, np.random.default_rng(3))
    gaps = np.diff(times)

    assert 1 / gaps.mean() == pytest.approx(10.0, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_no_burstiness_is_a_clock() -> None:
    times = gamma_times(4.0, 0.0, 1.0, np.random.default_rng(0))

    assert times.tolist() == [0.0, 0.25, 0.5, 0.75]


def test_calls_of_all_models_come_in_the_order_of_time() -> None:
    asked = [demand("a", rate=5.0, slo_s=0.1), demand("b", rate=1.0, slo_s=0.7)]
    trace = draw_trace(asked, seconds=100, random=np.random.default_rng(1))

    assert (np.diff(trace.times_s) >= 0).all()
    assert sum(trace.counts) == len(trace)
    assert set(zip(trace.models.tolist(), trace.slo_s.tolist(), strict=True)) == {
        (0, 0.1),
        (1, 0.7),
    }
