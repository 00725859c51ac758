"""What the autoscaler's actor knows and decides, without Ray."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

from pydantic import TypeAdapter, ValidationError

from actors.autoscaling.setup import AutoscalingSetup
from cluster.control.autoscaling.fleet import Fleet
from cluster.control.autoscaling.forecast import SeasonSeen
from cluster.control.autoscaling.gather import DeploymentReport, DoorReport, Gatherer
from cluster.control.autoscaling.load import Scaling
from cluster.control.autoscaling.look import Look, record
from cluster.observability.metrics import AutoscalingMetrics, ScalingSource

MAX_KEPT = 50
_SEASONS = TypeAdapter(Mapping[str, SeasonSeen])

logger = logging.getLogger("squadron.autoscaling")


class AutoscalingControl:
    """`clock` only rises; `wall` is Unix time, by which seasons are found again."""

    def __init__(
        self,
        metrics: AutoscalingMetrics,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._generation = 0
        self._fleet: Fleet | None = None
        self._phase_s = wall() - clock()
        self._seasons: Mapping[str, SeasonSeen] = {}
        self._gatherer = Gatherer(rows_at_once={})
        self._latest: dict[str, Scaling] = {}
        self._changes: deque[tuple[float, Scaling]] = deque(maxlen=MAX_KEPT)

    def report(self, door: str, setup: AutoscalingSetup, report: DoorReport) -> None:
        """A door tells its load, and the configuration it works by; the newest one counts."""
        if setup.generation > self._generation:
            self._generation = setup.generation
            self._adopt(setup)
        self._gatherer.door(door, report, self._clock())

    def _adopt(self, setup: AutoscalingSetup) -> None:
        """What goes on as it was, keeps what was learned of it."""
        if self._fleet is None:
            self._fleet = Fleet(
                setup.variants,
                calls=setup.calls,
                budget=setup.budget,
                phase_s=self._phase_s,
            )
            self._fleet.remember(self._seasons)
        else:
            self._fleet.adopt(setup.variants, calls=setup.calls, budget=setup.budget)
        self._gatherer.rows_at_once = setup.rows_at_once
        for gone in self._latest.keys() - setup.variants.keys():
            del self._latest[gone]
            self._metrics.target.labels(gone).set(0)

    def seasons(self) -> str:
        """To be kept for the next process; empty while there is nothing to keep."""
        # What is not served now may come back.
        found = {**self._seasons, **(self._fleet.seasons() if self._fleet is not None else {})}
        return _SEASONS.dump_json(found).decode() if found else ""

    def remember(self, text: str) -> None:
        """What `seasons` of an earlier process gave."""
        if not text:
            return
        try:
            self._seasons = _SEASONS.validate_json(text)
        except ValidationError as error:
            logger.warning("what was kept of seasons cannot be read and is left: %s", error)
            return
        if self._fleet is not None:
            self._fleet.remember(self._seasons)

    def exchange(self, seen: Mapping[str, DeploymentReport]) -> dict[str, int]:
        """What runs is told, how many shall is given; a variant not decided yet is left out."""
        for variant, report in seen.items():
            self._gatherer.serve(variant, report)
        return {name: each.num_replicas for name, each in self._latest.items()}

    def decisions(self) -> list[dict[str, object]]:
        """The latest decision of each variant (`is_latest`, of now), then the changes, the newest
        first; each with its `reason`, and `at_s` in seconds since 1970. A change that is still
        the latest decision stands in both."""
        now_s = time.time()
        latest = [_told(now_s, each, is_latest=True) for each in self._latest.values()]
        changes = [_told(at_s, each, is_latest=False) for at_s, each in reversed(self._changes)]
        return [*latest, *changes]

    def decide(self, num_cores: int = 0) -> None:
        """Look at what was told since the last time. Asked about once a second. `num_cores`: of
        all nodes; 0: not known."""
        load = self._gatherer.look(self._clock())
        if load is None or self._fleet is None:
            return
        load = replace(load, num_cores=num_cores)
        state = self._fleet.state()
        decisions = self._fleet.decide(load)
        if any(scaling.is_change for scaling in decisions):
            logger.info("look %s", record(Look(state=state, load=load, decisions=decisions)))
        for scaling in decisions:
            self._latest[scaling.variant] = scaling
            self._metrics.target.labels(scaling.variant).set(scaling.num_replicas)
            if scaling.is_change:
                logger.info("%s", as_text(scaling))
                source: ScalingSource = "guard" if scaling.is_guard else "forecast"
                self._metrics.changes.labels(scaling.variant, source).inc()
                self._changes.append((time.time(), scaling))


def as_text(scaling: Scaling) -> str:
    before = f"{scaling.num_before} -> " if scaling.is_change else ""
    return f"{scaling.variant}: {before}{scaling.num_replicas} replicas: {scaling.reason}"


def _told(at_s: float, scaling: Scaling, *, is_latest: bool) -> dict[str, object]:
    told = {"at_s": at_s, "is_change": scaling.is_change, "is_latest": is_latest}
    return {**asdict(scaling), **told}
