"""What a door does for experiments: chooses the arm, counts what comes of it, notes which request
met which arm, and hands all that over once a second. Nothing here waits for anybody."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from actors.experiments.tally import ArmTally
from cluster.config.experiment import ExperimentConfig
from cluster.errors import SquadronError
from cluster.experiments.callers import Callers, cluster_of, digest_of
from cluster.experiments.counts import NUM_CLUSTERS, Agreement
from cluster.experiments.report import Tallied
from cluster.requests import Assignment, InferenceRequest, rows_of, sequence_of
from cluster.routing.split import choose_arm
from cluster.routing.table import EnsembleRoute, ExperimentRoute, RoutingTable, VariantRoute

Found = TypeVar("Found")

MAX_TRACKING_CHARACTERS = 128
FAULTS = frozenset(
    {
        "overloaded",
        "rate_limited",
        "deadline_exceeded",
        "no_ready_replica",
        "engine_failed",
        "out_of_memory",
        "shard_lost",
        "replica_failed",
        "sequence_lost",
        "unavailable",
    }
)
"""Outcomes that an arm answers for. What the caller did wrong or gave up says nothing about it."""

_NOTHING = ExperimentConfig(split={"_": 1.0})


@dataclass(slots=True, kw_only=True, eq=False)
class _Running:
    """An experiment at this door, under the weights that it has now."""

    route: ExperimentRoute
    config: ExperimentConfig
    number: int
    slo_s: float
    batched: frozenset[str] = frozenset()
    callers: Callers = field(default_factory=Callers)


class ExperimentDesk:
    """Lives on the door's loop."""

    def __init__(self) -> None:
        self.has_rules = False
        self.sticky_headers: Mapping[str, str] = {}
        self._running: dict[str, _Running] = {}
        self._weights: dict[tuple[str, int], Mapping[str, float]] = {}
        self._tallies: dict[tuple[str, int, str], ArmTally] = {}
        self._slice = 0
        self._prefix = os.urandom(6).hex()
        self._num_tracked = 0

    @property
    def is_needed(self) -> bool:
        return bool(self._running)

    def adopt(self, table: RoutingTable) -> None:
        """Begin to count anew where weights have changed."""
        routes = {n: r for n, r in table.routes.items() if isinstance(r, ExperimentRoute)}
        self._running = {name: self._continued(route) for name, route in routes.items()}
        for each in self._running.values():
            arms = {arm: table.routes.get(arm) for arm in each.route.weights}
            each.batched = frozenset(
                arm for arm, r in arms.items() if isinstance(r, VariantRoute) and r.facts.is_batched
            )
        self.has_rules = any(each.config.match for each in self._running.values())
        names = table.routes if routes else ()
        found = {name: _sticky_header(table, name) for name in names}
        self.sticky_headers = {name: header for name, header in found.items() if header}

    def match(self, experiment: str, headers: Mapping[str, str]) -> Assignment | None:
        """The arm that a rule on the headers names."""
        running = self._running.get(experiment)
        for rule in running.config.match if running is not None else ():
            if headers.get(rule.header) == rule.value:
                assert running is not None  # it has a rule
                number = running.number
                return Assignment(experiment=experiment, arm=rule.arm, by="rule", stratum=number)
        return None

    def choose(
        self, route: ExperimentRoute, request: InferenceRequest, draw: Callable[[], float]
    ) -> str:
        """The arm for a request, the same however often it is asked for it."""
        if request.assignment is not None:
            return request.assignment.arm
        step = sequence_of(request.parameters) if request.parameters else None
        key = request.affinity_key or (f"sequence {step.id}" if step is not None else "")
        chosen = choose_arm(route.arms, experiment=route.name, key=key, draw=draw()).variant
        running = self._running.get(route.name)
        number = running.number if running is not None else 0
        assignment = Assignment(experiment=route.name, arm=chosen, by="chance", stratum=number)
        request.assignment = assignment
        if key:
            digest = digest_of(key)
            assignment.by = "key"
            assignment.cluster = cluster_of(digest)
            if running is not None and running.callers.is_new(digest):
                self._tally(assignment).callers.append(digest)
        else:
            assignment.cluster = self._slice
        return chosen

    def began(self, request: InferenceRequest) -> None:
        """The request goes to the arm that was chosen."""
        assignment = request.assignment
        if assignment is None:
            return
        if not request.tracking_id:
            request.tracking_id = self._tracking_id(request)
        if assignment.by == "chance":
            self._tally(assignment).drawn += 1

    def ended(self, request: InferenceRequest, outcome: str, seconds: float) -> None:
        """The request was answered, or it failed."""
        assignment = request.assignment
        if assignment is None:
            return
        tally = self._tally(assignment)
        running = self._running.get(assignment.experiment)
        if outcome == "success":
            is_batched = running is not None and assignment.arm in running.batched
            tally.rows += rows_of(request) if is_batched else 1
        if assignment.by == "rule":
            tally.matched += 1
            return
        if assignment.by == "chance":
            tally.answered += 1
        if outcome == "success":
            tally.served(assignment.cluster, seconds)
            tally.remember(request.tracking_id, assignment.cluster)
            if running is not None and seconds > running.slo_s:
                tally.slow += 1
        elif outcome in FAULTS:
            tally.failed(assignment.cluster)

    async def counted(self, request: InferenceRequest, work: Awaitable[Found]) -> Found:
        """The same for an ensemble's member: does the work and counts what comes of it."""
        began_s, outcome = time.perf_counter(), "cancelled"
        try:
            found = await work
            outcome = "success"
        except SquadronError as error:
            outcome = error.code
            raise
        finally:
            self.ended(request, outcome, time.perf_counter() - began_s)
        return found

    def mirrored(self, assignment: Assignment, arm: str, found: Agreement) -> None:
        """What came of a copy that went to `arm`."""
        place = (assignment.experiment, assignment.stratum, arm)
        tally = self._tallies.setdefault(place, ArmTally())
        tally.agreement = tally.agreement + found

    def next_slice(self) -> None:
        """Requests without a key that come from now on are of another moment."""
        self._slice = (self._slice + 1) % NUM_CLUSTERS
        for tally in self._tallies.values():
            tally.pack()

    def collect(self) -> tuple[Tallied, ...]:
        """What was counted since the last time."""
        tallies, self._tallies = self._tallies, {}
        grouped: dict[tuple[str, int], dict[str, ArmTally]] = {}
        for (experiment, number, arm), tally in tallies.items():
            tally.pack()
            grouped.setdefault((experiment, number), {})[arm] = tally
        return tuple(
            Tallied(
                experiment=place[0],
                weights=self._weights[place],
                arms={name: arm.counts() for name, arm in arms.items()},
                callers={name: tuple(arm.callers) for name, arm in arms.items() if arm.callers},
                asked={name: arm.asked for name, arm in arms.items() if arm.asked},
            )
            for place, arms in grouped.items()
            if place in self._weights
        )

    def _continued(self, route: ExperimentRoute) -> _Running:
        known = self._running.get(route.name)
        config = route.config or _NOTHING
        if known is not None and known.route.weights == route.weights and known.config == config:
            known.route = route
            return known
        number = known.number + 1 if known is not None else 1
        self._weights[route.name, number] = route.weights
        # Requests that began under weights of before are told with those.
        while len(self._weights) > 4096:
            del self._weights[next(iter(self._weights))]
        slo_ms = config.analysis.slo_ms
        return _Running(
            route=route,
            config=config,
            number=number,
            slo_s=float("inf") if slo_ms is None else slo_ms / 1e3,
        )

    def _tally(self, assignment: Assignment) -> ArmTally:
        place = (assignment.experiment, assignment.stratum, assignment.arm)
        found = self._tallies.get(place)
        if found is None:
            found = self._tallies[place] = ArmTally()
        return found

    def _tracking_id(self, request: InferenceRequest) -> str:
        if is_tracking_id(request.request_id):
            return request.request_id
        self._num_tracked += 1
        return f"{self._prefix}-{self._num_tracked:x}"


def _sticky_header(table: RoutingTable, name: str) -> str:
    """Of an ensemble that of the first experiment among its models; empty where there is none."""
    match table.routes.get(name):
        case ExperimentRoute(sticky_header=header):
            return header
        case EnsembleRoute(plan=plan):
            return next(filter(None, (_sticky_header(table, each) for each in plan.models)), "")
        case _:
            return ""


def is_tracking_id(text: str) -> bool:
    """Whether a caller's id can stand in a header as it is."""
    return 0 < len(text) <= MAX_TRACKING_CHARACTERS and text.isascii() and text.isprintable()


def answer_headers(asked: InferenceRequest, variant: str) -> list[tuple[str, str]]:
    """Who answered, and what the request is called in feedback and logs."""
    headers = [("x-squadron-variant", variant)]
    if asked.tracking_id:
        headers.append(("x-request-id", asked.tracking_id))
    return headers


def failure_headers(asked: InferenceRequest) -> list[tuple[str, str]]:
    """The same of a request that was not answered, as far as it came."""
    headers = []
    if asked.assignment is not None:
        headers.append(("x-squadron-variant", asked.assignment.arm))
    if asked.tracking_id:
        headers.append(("x-request-id", asked.tracking_id))
    return headers
