"""The traces that are replayed against a running server."""

from __future__ import annotations

import pytest

from cluster.config.scaling.autoscaling import AutoscalingConfig
from loadtests.live_traces import run_simulated, trace_of


@pytest.mark.parametrize("name", ["daily", "bursty"])
def test_a_short_trace_is_short_and_the_simulator_takes_it(name: str) -> None:
    trace = trace_of(name, is_short=True, high=15.0)

    assert 100 < len(trace.arrivals) < 1000
    assert trace.arrivals[-1] <= 60
    AutoscalingConfig.model_validate(trace.scaling)
    found = run_simulated(trace)
    assert 0 < found["in_time_share"] <= 1
    assert found["replica_seconds"] > 0


def test_a_long_day_is_counted_from_the_second_one_on() -> None:
    trace = trace_of("daily", is_short=False, high=15.0)

    assert trace.learns_s == trace.season_s == 240
    assert trace.arrivals[-1] > 600
