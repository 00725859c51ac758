"""One control pass: what was observed in, what to do and why out.

A snapshot and its actions are plain values that become one line of JSON and come back from it, so
that a decision of yesterday can be made again today (`record`, `replay`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

from cluster.config.experiment import ExperimentConfig
from cluster.experiments.judge import Verdict, judge
from cluster.experiments.state import ExperimentState
from cluster.experiments.step import Step, next_step
from cluster.models import ModelState
from cluster.routing.table import RoutingTable, VariantRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSeen:
    """One Serve deployment as Serve reports it; counts are replicas, `running` their ids."""

    status: str
    num_running: int
    num_starting: int
    message: str = ""
    running: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSeen:
    """A variant as the doors know it, and its deployment as Serve reports it (None: not there)."""

    state: ModelState
    reason: str
    num_replicas: int
    deployment: DeploymentSeen | None
    is_autoscaled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSeen:
    config: ExperimentConfig
    state: ExperimentState


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the controller saw at `at_s` (Unix time). `seed` is the pass's share of chance."""

    at_s: float = 0.0
    seed: int = 0
    variants: Mapping[str, VariantSeen] = field(default_factory=dict)
    experiments: Mapping[str, ExperimentSeen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetState:
    """Tell the doors that a variant serves, starts, or cannot; of one that is autoscaled also how
    many replicas run."""

    variant: str
    state: ModelState
    reason: str
    num_replicas: int | None = None
    kind: Literal["set_state"] = "set_state"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTraffic:
    """Give an experiment new weights, or a new status."""

    experiment: str
    step: Step
    kind: Literal["move_traffic"] = "move_traffic"

    @property
    def reason(self) -> str:
        return self.step.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class SayVerdict:
    """An experiment's verdict has changed."""

    experiment: str
    verdict: Verdict
    reason: str
    kind: Literal["say_verdict"] = "say_verdict"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPeaks:
    """Remember the most evidence that was ever seen."""

    experiment: str
    peaks: Mapping[str, float]
    reason: str = "more evidence than before"
    kind: Literal["keep_peaks"] = "keep_peaks"


MOVED = 0.01
"""Of the traffic; a bandit's share scatters by as much."""

Action = SetState | MoveTraffic | SayVerdict | KeepPeaks


def reconcile(snapshot: Snapshot) -> tuple[Action, ...]:
    """What is to be done; nothing when all is as it should be."""
    return (*_states(snapshot), *_experiments(snapshot))


def is_worth_a_line(snapshot: Snapshot, actions: tuple[Action, ...]) -> bool:
    """More evidence is none, nor is a bandit's update that moves nobody: both come all day."""
    return any(_is_worth_a_line(snapshot, action) for action in actions)


def _is_worth_a_line(snapshot: Snapshot, action: Action) -> bool:
    match action:
        case KeepPeaks():
            return False
        case MoveTraffic(experiment=name, step=step) if step.rewards is not None:
            return has_moved(snapshot.experiments[name].state.weights, step.weights, MOVED)
    return True


def has_moved(before: Mapping[str, float], after: Mapping[str, float], share: float) -> bool:
    """Whether an arm has so much more or less of the traffic."""
    old, new = sum(before.values()), sum(after.values())
    arms = before.keys() | after.keys()
    return any(abs(before.get(a, 0) / old - after.get(a, 0) / new) >= share for a in arms)


def variants_seen(
    table: RoutingTable, deployments: Mapping[str, DeploymentSeen]
) -> dict[str, VariantSeen]:
    """The variants that may serve here; others stay unavailable whatever is seen."""
    return {
        name: VariantSeen(
            state=route.state,
            reason=route.reason,
            num_replicas=route.num_replicas,
            deployment=deployments.get(route.deployment),
            is_autoscaled=route.is_autoscaled,
        )
        for name, route in table.routes.items()
        if isinstance(route, VariantRoute) and not route.facts.unavailable
    }


def _states(snapshot: Snapshot) -> Iterator[SetState]:
    for name, variant in snapshot.variants.items():
        state, reason = judge_state(variant)
        seen, running = variant.deployment, None
        if variant.is_autoscaled and seen is not None and seen.num_running != variant.num_replicas:
            running = seen.num_running
        if (state, reason) != (variant.state, variant.reason) or running is not None:
            yield SetState(variant=name, state=state, reason=reason, num_replicas=running)


def judge_state(variant: VariantSeen) -> tuple[ModelState, str]:
    """A variant serves as long as one replica runs, whatever Serve is doing to the others."""
    seen = variant.deployment
    if seen is None:
        return "LOADING", "waiting for its first replica"
    if seen.num_running > 0:
        return "READY", ""
    if variant.is_autoscaled and seen.status in ("HEALTHY", "DOWNSCALING"):
        return "READY", "scaled to zero: the first request is held until a replica runs"
    if variant.num_replicas == 0 and not variant.is_autoscaled:
        return "UNAVAILABLE", "scaled to zero"
    if seen.status == "DEPLOY_FAILED":
        return "UNAVAILABLE", seen.message or seen.status
    if seen.status == "UNHEALTHY":
        # Serve is replacing what died: doors hold requests instead of refusing them.
        return "LOADING", "its replicas died; replacements are on their way"
    return "LOADING", f"{seen.num_starting} replicas are starting"


def _experiments(snapshot: Snapshot) -> Iterator[Action]:
    for name, seen in snapshot.experiments.items():
        state = seen.state
        judgement = judge(seen.config, state.strata, state.peaks)
        if dict(judgement.peaks) != dict(state.peaks):
            yield KeepPeaks(experiment=name, peaks=judgement.peaks)
        if judgement.verdict != state.verdict:
            yield SayVerdict(experiment=name, verdict=judgement.verdict, reason=judgement.reason)
        step = next_step(seen.config, state, judgement, at_s=snapshot.at_s, seed=snapshot.seed)
        if step is not None:
            yield MoveTraffic(experiment=name, step=step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One control pass as it is logged."""

    snapshot: Snapshot
    actions: tuple[Action, ...]


_PASS = TypeAdapter(Pass)


def record(snapshot: Snapshot, actions: tuple[Action, ...]) -> str:
    """One line of JSON."""
    return _PASS.dump_json(Pass(snapshot=snapshot, actions=actions)).decode()


def replay(line: str) -> Pass:
    """What `record` wrote; `reconcile` of its snapshot gives its actions again."""
    return _PASS.validate_json(line)
