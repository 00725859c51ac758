from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from cluster.config.serve_file import read_serve_file
from loadtests.goals import ISSUED, Goal, goals_of, not_measured
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


MACHINE = {"cores": 2, "load": [0.1, 0.1, 0.1]}


def figures(**changes: Any) -> dict[str, Any]:
    """A run with one work and nothing measured."""
    return {"plan": "full", "machine": MACHINE, "works": {"identity": {"peers": {}} | changes}}


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


def test_a_goal_that_a_run_leaves_out_is_named() -> None:
    assert set(not_measured(goals_of(figures()))) == set(ISSUED)

    found = goals_of(figures(p50_c1_ms=0.1, soak=soak(requests=1_000_000)))
    assert set(ISSUED) - set(not_measured(found)) == {
        "identity.p50_c1_ms",
        "identity.memory_growth",
    }
    few = goals_of(figures(soak=soak(requests=75_000)))
    assert "identity.memory_growth" in not_measured(few)


def soak(*, requests: int) -> dict[str, Any]:
    return {"requests": requests, "settled_after": 50_000, "largest_growth": 1.01}


def test_the_bare_loop_is_a_reference_and_never_the_best_peer() -> None:
    peers = {"bare_loop": peer(100.0, 60.0), "mosec": peer(20.0, 60.0), "slow": peer(1.0, 60.0)}
    goals = {goal.name: goal for goal in goals_of(figures(peers=peers))}

    assert goals["identity.rate_vs_best_peer"].what.endswith("(mosec)")
    assert goals["identity.rate_vs_mosec"].value == pytest.approx(3.0)
    assert goals["identity.rate_vs_mosec"].verdict == "open"
    assert goals["identity.rate_vs_bare_loop"].verdict == "met"
    assert goals["identity.rate_vs_slow"].verdict == ""


def test_another_process_is_held_against_the_doors_own_not_against_a_door_without_ray() -> None:
    levels = {"L3_against_L2": {"rate_ratio": ratio(0.9)}}
    goals = {goal.name: goal for goal in goals_of(figures(levels=levels))}
    assert goals["identity.serve_vs_without_ray"].bound is None
    assert "identity.other_process_vs_same" not in goals

    goals = {goal.name: goal for goal in goals_of(figures(apart={"rate_ratio": ratio(0.4)}))}
    assert goals["identity.other_process_vs_same"].bound == 0.5


def test_the_two_identities_of_the_bench_differ_in_where_they_run(root: Path) -> None:
    _, config = read_serve_file(root / "serve_configs/bench.yaml")
    here, apart = config.variants["identity"], config.variants["identity-apart"]

    assert (here.colocate, apart.colocate) == ("auto", "never")
    assert apart.model_copy(update={"colocate": "auto"}) == here


def test_goodput_is_held_against_its_peak() -> None:
    points = [
        {"share": share, "good_per_s": good, "slo_ms": 50.0}
        for share, good in ((1.0, 80.0), (2.0, 100.0), (3.0, 90.0))
    ]
    [goal] = goals_of(figures(overloads=points))

    assert (goal.name, goal.value, goal.verdict) == ("identity.goodput_at_3x", 0.9, "missed")


def test_a_control_that_strays_and_a_late_generator_are_said() -> None:
    found = figures(
        control={"rate_ratio": ratio(1.2)},
        loads=[{"share": 0.7, "send_lag_p99_ms": 2.0, "quantiles_ms": {}}],
    )
    notes = " ".join(warnings_of(found, goals_of(found)))

    assert "identity.control is 1.200" in notes
    assert "late by over 1 ms (p99) at 70%" in notes


def test_a_goal_is_decided_by_the_whole_interval() -> None:
    def verdict(low: float, high: float, kind: Literal["at least", "at most"]) -> str:
        goal = Goal(name="", what="", value=1.0, low=low, high=high, kind=kind, bound=1.0)
        return goal.verdict

    assert [verdict(1.0, 1.2, "at least"), verdict(0.9, 1.1, "at least")] == ["met", "open"]
    assert [verdict(0.8, 0.9, "at least"), verdict(1.1, 1.2, "at most")] == ["missed", "missed"]
    assert [verdict(0.8, 1.0, "at most"), verdict(0.9, 1.1, "at most")] == ["met", "open"]


def test_every_ratio_of_the_committed_report_has_a_goal_that_agrees_with_it(root: Path) -> None:
    file = root / "loadtests" / "report" / "summary.json"
    for name, goal in json.loads(file.read_text())["ratios"].items():
        assert goal["name"] == name
        assert (goal["verdict"] == "") == (goal["bound"] is None)
        if goal["low"] is not None:
            assert goal["low"] <= goal["value"] <= goal["high"], name
