"""What a door counts for autoscaling beside its own tally: that one knows requests by the model
that was asked, and failures by nobody; here they are their variant's, members of ensembles too."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from actors.delivery.answer import Answer
from cluster.errors import SquadronError
from cluster.observability.metrics import LATENCY_BUCKETS_S
from cluster.requests import InferenceRequest
from cluster.routing.table import RoutingTable

MISSES = frozenset(
    {
        "overloaded",
        "deadline_exceeded",
        "no_ready_replica",
        "shard_lost",
        "replica_failed",
        "unavailable",
        "out_of_memory",
    }
)
"""Outcomes of a request that missed its objective for want of replicas. Not an engine's error, a
quota or the caller's mistake: no number of replicas mends those."""


@dataclass(slots=True, kw_only=True)
class Answered:
    """`ensembles`: requests that began; `missed`: by variant; `members`: variant -> its answers to
    ensembles, by `LATENCY_BUCKETS_S`."""

    ensembles: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    members: dict[str, list[int]] = field(default_factory=dict)


class Answers:
    """Bound to one front door, on its loop. `table`: the door's, of now."""

    def __init__(self, table: Callable[[], RoutingTable]) -> None:
        self._table = table
        self._since = Answered()

    def began(self, ensemble: str, request: InferenceRequest) -> None:
        """An ensemble of nobody else's, since those within are counted with the outermost one."""
        if not request.is_member:
            self._since.ensembles[ensemble] += 1

    def ended(self, request: InferenceRequest, outcome: str) -> None:
        """Only failures are counted: the door's tally has the answers."""
        if outcome in MISSES:
            self._since.missed[self._asked(request)] += 1

    async def of_member(self, request: InferenceRequest, work: Awaitable[Answer]) -> Answer:
        """Does a member's work and counts what comes of it. Raises: what the work raises."""
        began_s = time.perf_counter()
        try:
            answer = await work
        except SquadronError as error:
            self.ended(request, error.code)
            raise
        buckets = self._since.members.get(answer.variant)
        if buckets is None:
            buckets = self._since.members[answer.variant] = [0] * (len(LATENCY_BUCKETS_S) + 1)
        buckets[bisect_left(LATENCY_BUCKETS_S, time.perf_counter() - began_s)] += 1
        return answer

    def take(self) -> Answered:
        """Since it was last asked."""
        taken, self._since = self._since, Answered()
        return taken

    def _asked(self, request: InferenceRequest) -> str:
        if request.assignment is not None:
            return request.assignment.arm
        if request.version:
            versions = self._table().versions_of(request.model)
            return versions.get(request.version, request.model)
        return request.model
