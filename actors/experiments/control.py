"""The controller's side of experiments: counts in, weights and verdicts out, everything kept."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from actors.experiments.kept import Event, Keeper, Kept
from actors.experiments.ratings import Counted, Ratings
from cluster.config.experiment import ExperimentConfig
from cluster.control.reconcile import (
    Action,
    ExperimentSeen,
    KeepPeaks,
    MoveTraffic,
    SayVerdict,
    has_moved,
)
from cluster.errors import InvalidRequest, ModelNotFound
from cluster.experiments.callers import Callers
from cluster.experiments.report import Cost, HandedOn, Post, Rated, Report, Tallied
from cluster.experiments.state import ExperimentState, begin
from cluster.experiments.step import Step
from cluster.experiments.view import JsonObject, experiment_view
from cluster.routing.table import ExperimentRoute, RoutingTable

logger = logging.getLogger("squadron.experiments")

MAX_EVENTS = 1000
WORTH_TELLING = 0.05
"""Of the traffic, by which a bandit's arm has more or less than when it was last told of."""
MAX_KEPT_REPORTS = 256


class ExperimentControl:
    """Lives on the controller's loop. `clock` is Unix time. `rated` is given each value of feedback
    where they are kept one by one; it waits for nobody."""

    def __init__(
        self,
        store: Keeper,
        clock: Callable[[], float],
        *,
        rated: Callable[[Sequence[Rated]], None] | None = None,
    ) -> None:
        self._store = store
        self._rated = rated
        self._clock = clock
        self._configs: dict[str, ExperimentConfig] = {}
        kept = store.read()
        self._states: dict[str, ExperimentState] = dict(kept.experiments)
        self._callers = {name: Callers(found) for name, found in kept.callers.items()}
        self._reports: dict[str, int] = dict(kept.reports)
        self.events: deque[Event] = deque(kept.events, maxlen=MAX_EVENTS)
        self._ratings = Ratings(store, kept, clock)
        self._handed_on: dict[str, HandedOn] = dict(kept.handed_on)
        self._costs: dict[str, Mapping[str, Cost]] = {}
        self.repository, self.seasons = kept.repository, kept.seasons
        self._saved_s, self._generation = kept.saved_s, kept.generation
        self._is_dirty = False
        self._told_shares: dict[str, Mapping[str, float]] = {}

    @property
    def weights(self) -> dict[str, Mapping[str, float]]:
        """Experiment -> the weights in force."""
        return {name: self._states[name].weights for name in self._configs}

    def adopt(self, table: RoutingTable, generation: int = 0) -> None:
        """The configuration's experiments; one whose section is as it was goes on as it was. Events
        outlive a server: one says where those of the configuration `generation` begin."""
        if generation != self._generation:
            self._generation = generation
            num = len(table.routes)
            self.note("start", "all", f"{num} models; what stands before was before this start")
        self._configs = {
            name: route.config
            for name, route in table.routes.items()
            if isinstance(route, ExperimentRoute) and route.config is not None
        }
        for name, config in self._configs.items():
            known = self._states.get(name)
            if known is None or known.section != digest_of(config):
                self._begin(name, "its section of the configuration is new")
        for gone in self._states.keys() - self._configs.keys():
            del self._states[gone]
            self._forget(gone)
        self._ratings.adopt({name: each.feedback.remember for name, each in self._configs.items()})
        self.keep()

    def seen(self) -> dict[str, ExperimentSeen]:
        return {
            name: ExperimentSeen(config=config, state=self._states[name])
            for name, config in self._configs.items()
        }

    def act(self, actions: tuple[Action, ...]) -> None:
        """Take over what was decided."""
        for action in actions:
            match action:
                case KeepPeaks(experiment=name, peaks=peaks):
                    self._change(name, replace(self._states[name], peaks=dict(peaks)))
                case SayVerdict(experiment=name, verdict=verdict, reason=reason):
                    self._change(name, replace(self._states[name], verdict=verdict))
                    self.note("verdict", name, f"{verdict}: {reason}")
                case MoveTraffic(experiment=name, step=step):
                    self._change(name, step.applied(self._states[name], self._clock()))
                    self._callers.pop(name, None)
                    self._note_move(name, step)
                case _:
                    pass

    def _note_move(self, name: str, step: Step) -> None:
        """A bandit moves every few seconds: what is told of it are changes that somebody would
        look at, or they would be all that is kept of a day."""
        if step.rewards is not None:
            told = self._told_shares.get(name)
            if told is not None and not has_moved(told, step.weights, WORTH_TELLING):
                return
            self._told_shares[name] = step.weights
        self.note("traffic", name, f"{shown(step.weights)}: {step.reason}")

    def take(
        self, door: str, report: Report | None, posts: Sequence[Post] = ()
    ) -> list[int | None]:
        """Count a report, once, and then what `posts` say. How many values of each post were
        counted; None for an experiment that does not exist. Kept with the next `keep`."""
        if report is not None and report.number > self._reports.get(door, 0):
            for tallied in report.tallies:
                self._count(tallied)
                found = self._ratings.take(tallied)
                self._rate(found)
                self._hand_on(tallied.experiment, HandedOn(found=len(found.rated)))
            self._reports.pop(door, None)
            self._reports[door] = report.number
            while len(self._reports) > MAX_KEPT_REPORTS:
                del self._reports[next(iter(self._reports))]
            self._is_dirty = True
        return [self._post(post) for post in posts]

    def take_costs(self, node: str, costs: Mapping[str, Cost]) -> None:
        """What the node's engines took so far; every door of a node says the same."""
        self._costs[node] = dict(costs)

    def set_weights(self, name: str, weights: Mapping[str, float]) -> None:
        """Raises: ModelNotFound; InvalidRequest for weights that do not fit the experiment."""
        config = self._config(name)
        checked = check_weights(name, config, weights)
        state = self._states[name]
        holds = config.canary is not None or config.bandit is not None
        if state.status in ("rolled_back", "promoted"):
            state = begin(config, state.section, self._clock())
            state = replace(state, strata=())
        state = state.with_weights(checked, self._clock())
        reason = "the weights were set by hand"
        state = replace(state, status="held" if holds else "running", reason=reason)
        self._change(name, state)
        self._callers.pop(name, None)
        self.note("traffic", name, f"{shown(checked)}: {reason}")
        self.keep()

    def reset(self, name: str) -> None:
        """Back to what the configuration says, with nothing counted. Raises: ModelNotFound."""
        self._config(name)
        self._begin(name, "reset by hand")
        self.keep()

    def view(self, name: str) -> JsonObject:
        """Raises: ModelNotFound."""
        costs: dict[str, Cost] = {}
        for of_node in self._costs.values():
            for variant, cost in of_node.items():
                costs[variant] = costs.get(variant, Cost()) + cost
        config = self._config(name)
        handed_on = self._handed_on.get(name, HandedOn())
        state = self._states[name]
        return experiment_view(name, config, state, self._clock(), costs, handed_on)

    def views(self) -> list[JsonObject]:
        return [self.view(name) for name in self._configs]

    def note(self, kind: str, subject: str, reason: str) -> None:
        level = logging.WARNING if kind == "lost" else logging.INFO
        logger.log(level, "%s %s: %s", kind, subject, reason)
        event = Event(at_s=self._clock(), kind=kind, subject=subject, reason=reason)
        self.events.append(event)
        self._is_dirty = True

    def keep_repository(self, text: str) -> None:
        """What is loaded is kept with everything else; written when this returns."""
        self.repository = text
        self._is_dirty = True
        self.keep()

    def keep_seasons(self, text: str) -> None:
        """Written with the next change, or within a control pass."""
        self._is_dirty = self._is_dirty or text != self.seasons
        self.seasons = text

    def keep(self) -> bool:
        """Write what has changed, so that the next controller knows it. Whether anything had."""
        if not self._is_dirty:
            return False
        self._is_dirty = False
        asked = self._ratings.write()
        # The newest counts when several are found: also after the clock was set back.
        self._saved_s = max(self._clock(), self._saved_s + 0.001)
        self._store.write(
            Kept(
                saved_s=self._saved_s,
                experiments=self._states,
                callers={name: tuple(each.digests) for name, each in self._callers.items()},
                reports=self._reports,
                events=tuple(self.events)[-200:],
                asked=asked,
                feedback=self._ratings.waiting(),
                handed_on=self._handed_on,
                repository=self.repository,
                seasons=self.seasons,
                generation=self._generation,
            )
        )
        self._ratings.clean()
        return True

    def _post(self, post: Post) -> int | None:
        name = post.experiment
        if name not in self._configs:
            return None
        found, unknown = self._ratings.rate(name, post.feedback)
        self._rate(found)
        self._ratings.wait(name, unknown)
        self._hand_on(name, HandedOn(values=len(unknown)))
        return len(found.rated)

    def _rate(self, found: Counted) -> None:
        for tallied in found.tallies:
            self._count(tallied)
        if self._rated is not None and found.rated:
            self._rated(found.rated)

    def _hand_on(self, experiment: str, more: HandedOn) -> None:
        if experiment in self._states and more != HandedOn():
            self._handed_on[experiment] = self._handed_on.get(experiment, HandedOn()) + more
            self._is_dirty = True

    def _forget(self, experiment: str) -> None:
        self._callers.pop(experiment, None)
        self._handed_on.pop(experiment, None)
        self._ratings.forget(experiment)

    def _count(self, tallied: Tallied) -> None:
        name = tallied.experiment
        state = self._states.get(name)
        if state is None:
            return
        arms = dict(tallied.arms)
        if dict(tallied.weights) == dict(state.weights):
            callers = self._callers.setdefault(name, Callers())
            for arm, digests in tallied.callers.items():
                arms[arm] = replace(arms[arm], units=sum(map(callers.is_new, digests)))
        else:
            arms = {arm: replace(counts, units=0) for arm, counts in arms.items()}
        self._change(name, state.counted(arms, dict(tallied.weights)))

    def _begin(self, name: str, reason: str) -> None:
        config = self._configs[name]
        self._change(name, begin(config, digest_of(config), self._clock()))
        self._forget(name)
        self.note("experiment", name, f"begins with {shown(self._states[name].weights)}: {reason}")

    def _change(self, name: str, state: ExperimentState) -> None:
        self._states[name] = state
        self._is_dirty = True

    def _config(self, name: str) -> ExperimentConfig:
        if name not in self._configs:
            known = ", ".join(self._configs) or "none"
            raise ModelNotFound(f"there is no experiment '{name}'; allowed: {known}")
        return self._configs[name]


MIN_SHARE = 1e-6
"""A smaller share is nobody's traffic, and its logarithms leave the range of numbers."""


def check_weights(
    name: str, config: ExperimentConfig, weights: Mapping[str, float]
) -> dict[str, float]:
    """Every arm's weight, in the configuration's order. Raises: InvalidRequest."""
    allowed = ", ".join(config.split)
    for arm, weight in weights.items():
        if arm not in config.split:
            raise InvalidRequest(f"{name} has no arm '{arm}'; allowed: {allowed}")
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not math.isfinite(weight) or weight < 0:
            raise InvalidRequest(f"the weight of {arm} is {weight!r}; allowed: a number >= 0")
    missing = [arm for arm in config.split if arm not in weights]
    if missing:
        raise InvalidRequest(
            f"every arm of {name} needs a weight; missing: {', '.join(missing)} (0: no traffic)"
        )
    total = sum(weights.values())
    if total <= 0:
        raise InvalidRequest(f"every weight of {name} is 0; at least one must be above 0")
    for arm, weight in weights.items():
        if not math.isfinite(total) or 0 < weight < MIN_SHARE * total:
            raise InvalidRequest(
                f"the weight of {arm} is {weight!r} of {total!r} in all; allowed: 0, or at least "
                f"{MIN_SHARE:g} of the sum"
            )
    return {arm: float(weights[arm]) for arm in config.split}


def digest_of(config: ExperimentConfig) -> str:
    """Of the configuration's section: a setting made at run time lives until it changes."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]


def shown(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{arm} {weight:g}" for arm, weight in weights.items())
