"""Many replicas in virtual time by what serves in production: scheduler, admission, queue.

Much slower than the simulator of the search: it is there to check what the search believed, and to
ask what batching does to a plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from cluster.config.variant import BatchingConfig
from cluster.errors import CapacityError
from cluster.placement.search.candidate import Candidate, Cuts, Evaluation
from cluster.placement.search.stages import Cut
from cluster.scheduling.admission import Reject
from cluster.scheduling.decision import Queued, Run, Wait
from cluster.scheduling.scheduler import Scheduler
from cluster.simulation.cluster.trace import Trace

ONE_BY_ONE = BatchingConfig(mode="off", max_queue_size=65536)


@dataclass(slots=True, kw_only=True)
class _Replica:
    """`num_open`: requests sent to it that have no answer yet, which is what doors go by."""

    model: int
    group: int
    cut: Cut
    scheduler: Scheduler[int]
    num_open: int = 0
    wake_s: float = inf
    waiting: dict[int, float] = field(default_factory=dict)

    @property
    def after_first_s(self) -> float:
        return self.cut.total_s - self.cut.stage_s[0]


class ProductionSimulator:
    """Callable with a candidate. A door sends each call to the replica with the fewest open
    requests (`actors.delivery.node_link`); replicas of a group take turns on its devices, the
    oldest call first; batches follow each other from stage to stage.

    `slope`: what each further row of a batch costs, as a share of the first. A deadline leaves the
    first stage what the later ones do not take for one row.
    """

    def __init__(
        self,
        trace: Trace,
        cuts: Callable[[Candidate], Cuts],
        *,
        batching: BatchingConfig = ONE_BY_ONE,
        slope: float = 1.0,
        request_s: float = 0.0,
    ) -> None:
        self._trace = trace
        self._cuts = cuts
        self._batching = batching
        self._slope = slope
        self._request_s = request_s

    def __call__(self, candidate: Candidate) -> Evaluation:
        run = _Run(candidate, self._cuts(candidate), self._trace, self._batching, self._slope)
        return run.evaluate(self._request_s)


class _Run:
    def __init__(
        self,
        candidate: Candidate,
        cuts: Cuts,
        trace: Trace,
        batching: BatchingConfig,
        slope: float,
    ) -> None:
        self._trace = trace
        self._slope = slope
        self._groups: list[list[_Replica]] = [[] for _ in candidate.groups]
        self._of_model: list[list[_Replica]] = [[] for _ in range(trace.num_models)]
        for index, (group, models) in enumerate(
            zip(candidate.groups, candidate.hosted, strict=True)
        ):
            for model in models:
                found = cuts.of(group, model)
                if isinstance(found, Cut):
                    replica = _Replica(
                        model=model, group=index, cut=found, scheduler=Scheduler(batching)
                    )
                    replica.scheduler.costs.observe(None, 1, found.stage_s[0])
                    self._groups[index].append(replica)
                    self._of_model[model].append(replica)
        self._clocks = [[0.0] * group.degrees.stages for group in candidate.groups]
        self._busy_s = [0.0] * len(candidate.groups)
        self._running: list[_Replica | None] = [None] * len(candidate.groups)
        self._events: list[tuple[float, int, int, int]] = []
        self._served = [0] * trace.num_models
        self._waited_s = 0.0

    def evaluate(self, request_s: float) -> Evaluation:
        """`request_s` is taken from each call's time, as a door takes it from a deadline."""
        for index, (now_s, model, slo_s) in enumerate(self._trace.calls):
            self._until(now_s)
            self._arrive(index, now_s, model, slo_s - request_s)
        self._until(inf)
        num_served = sum(self._served)
        counts = self._trace.counts
        return Evaluation(
            attainment=num_served / len(self._trace) if len(self._trace) else 1.0,
            mean_latency_s=self._waited_s / num_served + request_s if num_served else 0.0,
            num_requests=counts,
            unserved=tuple(n - done for n, done in zip(counts, self._served, strict=True)),
            busy_s=tuple(self._busy_s),
        )

    def _until(self, end_s: float) -> None:
        """What happens before `end_s`: a first stage is done, or somebody wakes up."""
        while self._events and self._events[0][0] <= end_s:
            now_s, is_wake, group, num_rows = heappop(self._events)
            if not is_wake:
                replica = self._running[group]
                assert replica is not None
                replica.scheduler.finished(now_s)
                replica.num_open -= num_rows
                self._running[group] = None
            self._dispatch(group, now_s)

    def _arrive(self, index: int, now_s: float, model: int, slo_s: float) -> None:
        replica = min(self._of_model[model], key=_open_requests, default=None)
        if replica is None:
            return
        left_s = slo_s - replica.after_first_s
        verdict = replica.scheduler.admit(now_s, rows=1, left_s=left_s)
        if isinstance(verdict, Reject):
            return
        replica.scheduler.arrived(1)
        item = Queued(payload=index, rows=1, arrived_s=now_s, deadline_s=now_s + left_s)
        try:
            replica.scheduler.push(item)
        except CapacityError:
            return
        replica.num_open += 1
        replica.waiting[index] = now_s
        if self._running[replica.group] is None:
            self._dispatch(replica.group, now_s)

    def _dispatch(self, group: int, now_s: float) -> None:
        if self._running[group] is not None:
            return
        waiting = [replica for replica in self._groups[group] if replica.waiting]
        for replica in sorted(waiting, key=_oldest_call):
            decision = replica.scheduler.decide(now_s)
            for drop in decision.dropped:
                replica.waiting.pop(drop.item.payload)
                replica.num_open -= 1
            if isinstance(decision, Run):
                self._start(replica, decision, now_s)
                return
            if isinstance(decision, Wait) and decision.until_s < inf:
                heappush(self._events, (decision.until_s, 1, group, 0))

    def _start(self, replica: _Replica, batch: Run[int], now_s: float) -> None:
        rows = batch.rows
        factor = 1.0 + self._slope * (rows - 1)
        clocks = self._clocks[replica.group]
        at_s = now_s
        for stage, seconds in enumerate(replica.cut.stage_s):
            at_s = max(at_s, clocks[stage]) + seconds * factor
            clocks[stage] = at_s
        self._running[replica.group] = replica
        self._busy_s[replica.group] += replica.cut.slowest_s * factor
        heappush(self._events, (clocks[0], 0, replica.group, rows))
        for item in batch.batch:
            replica.waiting.pop(item.payload)
            if at_s <= item.deadline_s + replica.after_first_s + 1e-9:
                self._served[replica.model] += 1
                self._waited_s += at_s - item.arrived_s


def _open_requests(replica: _Replica) -> int:
    return replica.num_open


def _oldest_call(replica: _Replica) -> float:
    return next(iter(replica.waiting.values()))
