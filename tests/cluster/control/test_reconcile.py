from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.config.experiment import ExperimentConfig
from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.control.reconcile import (
    Action,
    DeploymentSeen,
    ExperimentSeen,
    KeepPeaks,
    MoveTraffic,
    SayVerdict,
    SetState,
    Snapshot,
    is_worth_a_line,
    reconcile,
    record,
    replay,
    variants_seen,
)
from cluster.experiments.counts import ArmCounts
from cluster.experiments.state import begin
from cluster.experiments.step import Step
from cluster.models import ModelState
from cluster.routing.table import RoutingTable, VariantRoute
from tests.cluster.experiments.making import arm, measure
from tests.cluster.routing.test_table import table


def seen(running: int = 0, starting: int = 0, status: str = "HEALTHY") -> DeploymentSeen:
    return DeploymentSeen(status=status, num_running=running, num_starting=starting)


def experiment(arms: dict[str, ArmCounts], **sections: Any) -> ExperimentSeen:
    config = ExperimentConfig.model_validate({"split": {"a": 1, "b": 1}, **sections})
    state = begin(config, "digest", 0.0)
    return ExperimentSeen(config=config, state=state.counted(arms, state.weights))


@pytest.mark.parametrize(
    ("observed", "state", "reason"),
    [
        (seen(running=1), "READY", ""),
        (seen(running=1, status="UNHEALTHY"), "READY", ""),
        (seen(starting=2, status="UPDATING"), "LOADING", "2 replicas are starting"),
        (
            seen(status="UNHEALTHY"),
            "LOADING",
            "its replicas died; replacements are on their way",
        ),
        (seen(status="DEPLOY_FAILED"), "UNAVAILABLE", "DEPLOY_FAILED"),
    ],
)
def test_a_variant_is_as_ready_as_its_replicas(
    observed: DeploymentSeen, state: ModelState, reason: str
) -> None:
    snapshot = Snapshot(variants=variants_seen(table(), {"variant-a": observed}))

    (action,) = reconcile(snapshot)

    assert action == SetState(variant="a", state=state, reason=reason)


def test_nothing_new_is_nothing_to_do() -> None:
    assert reconcile(Snapshot(variants=variants_seen(table(), {}))) == ()


def test_what_cannot_be_served_here_stays_unavailable_whatever_is_seen() -> None:
    found = variants_seen(table(b_unavailable="not installed"), {"variant-b": seen(running=1)})

    assert "b" not in found


def test_a_slower_arm_under_guardrails_is_taken_out_of_the_traffic() -> None:
    arms = {"a": arm(1), "b": arm(2, log_latency=-4.7)}
    snapshot = Snapshot(at_s=9.0, experiments={"e": experiment(arms, guardrails={})})

    peaks, verdict, move = reconcile(snapshot)

    assert isinstance(peaks, KeepPeaks)
    assert isinstance(verdict, SayVerdict)
    assert verdict.verdict == "roll_back"
    assert isinstance(move, MoveTraffic)
    assert (move.experiment, move.step.weights) == ("e", {"a": 1, "b": 0})
    assert "latency" in move.reason


@pytest.mark.parametrize(
    "sections", [{"guardrails": {}}, {"canary": {"steps": [50, 100]}}, {"bandit": {}}]
)
def test_a_logged_pass_is_replayed_to_the_same_actions(sections: dict[str, Any]) -> None:
    bad = ArmCounts(errors=measure([1.0] * 400 + [0.0] * 400), latency_buckets={-90: 800})
    snapshot = Snapshot(
        at_s=1000.0,
        seed=17,
        variants=variants_seen(table(), {"variant-a": seen(running=1)}),
        experiments={"e": experiment({"a": arm(1), "b": arm(2) + bad}, **sections)},
    )
    line = record(snapshot, reconcile(snapshot))

    logged = replay(line)

    assert "\n" not in line
    assert any(isinstance(action, MoveTraffic) for action in logged.actions)
    assert reconcile(logged.snapshot) == logged.actions


def autoscaled() -> RoutingTable:
    made = table()
    route = made.routes["a"]
    assert isinstance(route, VariantRoute)
    route = replace(route, scaling=AutoscalingConfig(), num_replicas=1, state="READY", reason="")
    return replace(made, routes={**made.routes, "a": route})


def test_an_autoscaled_variant_at_zero_is_ready_and_says_what_happens() -> None:
    (action,) = reconcile(Snapshot(variants=variants_seen(autoscaled(), {"variant-a": seen()})))

    assert action == SetState(
        variant="a",
        state="READY",
        reason="scaled to zero: the first request is held until a replica runs",
        num_replicas=0,
    )


def test_the_doors_are_told_how_many_autoscaled_replicas_run() -> None:
    observed = seen(running=3, starting=2, status="UPSCALING")

    (action,) = reconcile(Snapshot(variants=variants_seen(autoscaled(), {"variant-a": observed})))

    assert action == SetState(variant="a", state="READY", reason="", num_replicas=3)


def test_a_table_with_states_has_the_numbers_that_were_seen() -> None:
    made = autoscaled().with_states({"a": ("READY", "")}, version=2, replicas={"a": 5})

    assert [variant.num_replicas for variant in made.variants_of("a")] == [5]


def test_a_pass_is_a_line_where_it_changes_something_that_somebody_would_look_at() -> None:
    def worth(*actions: Action) -> bool:
        seen = experiment({"a": arm(1), "b": arm(2)}, bandit={})
        return is_worth_a_line(Snapshot(experiments={"e": seen}), actions)

    def moved(share: float, **more: Any) -> MoveTraffic:
        step = Step(
            weights={"a": 0.5 + share, "b": 0.5 - share}, status="running", reason="", **more
        )
        return MoveTraffic(experiment="e", step=step)

    rewards = {"a": (1.0, 0.0)}
    assert not worth()
    assert not worth(KeepPeaks(experiment="e", peaks={}))
    assert not worth(moved(0.004, rewards=rewards))
    assert worth(moved(0.02, rewards=rewards))
    assert worth(moved(0.004))
    assert worth(KeepPeaks(experiment="e", peaks={}), moved(0.02, rewards=rewards))
