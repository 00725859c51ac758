from __future__ import annotations

from typing import Any

import pytest

from loadtests.goals import goals_of
from loadtests.levels import parse_batches
from loadtests.report import warnings_of

METRICS = """
nv_inference_count{model="m",version="1"} 30.0
nv_inference_exec_count{model="m",version="1"} 5.0
nv_inference_count{model="other",version="1"} 99.0
squadron_batch_rows_bucket{le="1.0",variant="m"} 1.0
squadron_batch_rows_bucket{le="8.0",variant="m"} 4.0
squadron_batch_rows_bucket{le="+Inf",variant="m"} 5.0
"""


def figures(**changes: Any) -> dict[str, Any]:
    """A run with one work and nothing measured."""
    return {"plan": "full", "works": {"identity": {"peers": {}} | changes}}


def ratio(value: float) -> dict[str, Any]:
    return {"value": value, "low": value * 0.9, "high": value * 1.1, "num_pairs": 4}


def peer(rate: float, squadrons: float) -> dict[str, Any]:
    return {
        "b_per_s": rate,
        "rate_ratio": ratio(squadrons / rate),
        "blocks": [{"generator_cores": 0.2}],
    }


def test_batches_are_read_from_the_metrics_of_one_variant() -> None:
    found = parse_batches(METRICS, "m")

    assert (found.rows, found.executions, found.mean_rows) == (30.0, 5.0, 6.0)
    assert found.buckets == {"1.0": 1.0, "8.0": 3.0, "+Inf": 1.0}
    assert found.since(found).mean_rows == 1.0


def test_what_was_not_measured_has_no_ratio() -> None:
    assert goals_of(figures()) == []


def test_the_bare_loop_is_a_reference_and_never_the_best_peer() -> None:
    peers = {"bare_loop": peer(100.0, 60.0), "mosec": peer(20.0, 60.0), "slow": peer(1.0, 60.0)}
    goals = {goal.name: goal for goal in goals_of(figures(peers=peers))}

    assert goals["identity.rate_vs_best_peer"].what.endswith("(mosec)")
    assert goals["identity.rate_vs_mosec"].value == pytest.approx(3.0)
    assert goals["identity.rate_vs_mosec"].is_met is True
    assert goals["identity.rate_vs_bare_loop"].is_met is True
    assert goals["identity.rate_vs_slow"].is_met is None


def test_goodput_is_held_against_its_peak() -> None:
    points = [
        {"share": share, "good_per_s": good, "slo_ms": 50.0}
        for share, good in ((1.0, 80.0), (2.0, 100.0), (3.0, 90.0))
    ]
    [goal] = goals_of(figures(overloads=points))

    assert (goal.name, goal.value, goal.is_met) == ("identity.goodput_at_3x", 0.9, False)


def test_a_control_that_strays_and_a_late_generator_are_said() -> None:
    found = figures(
        control={"rate_ratio": ratio(1.2)},
        loads=[{"share": 0.7, "send_lag_p99_ms": 2.0, "quantiles_ms": {}}],
    )
    notes = " ".join(warnings_of(found, goals_of(found)))

    assert "identity.control is 1.200" in notes
    assert "late by over 1 ms (p99) at 70%" in notes
