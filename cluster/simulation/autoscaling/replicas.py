"""A variant whose replicas come and go, in virtual time: one queue, any number of servers."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.config.scaling.autoscaling import AutoscalingBudget, AutoscalingConfig
from cluster.control.autoscaling.fleet import Fleet, FleetLoad, Scaled
from cluster.control.autoscaling.load import Scaling, VariantLoad
from cluster.simulation.autoscaling.stock import StockConfig, StockPolicy

VARIANT = "simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`service_s`: of the n-th request, in one replica. `startup_s`: from decision to first
    answer."""

    arrivals: Sequence[float]
    service_s: Callable[[int], float]
    startup_s: float
    slo_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`replica_s`: seconds of all replicas, those that start or finish their last request among
    them. Requests below `counts_from_s` count for nothing (a policy learns its first season)."""

    num_requests: int
    num_missed: int
    replica_s: float
    most_replicas: int
    scalings: tuple[Scaling, ...] = ()

    @property
    def miss_share(self) -> float:
        return self.num_missed / max(1, self.num_requests)


class Policy(Protocol):
    """Asked every `period_s` for the number of replicas."""

    period_s: float

    def decide(self, load: VariantLoad, num_ongoing: int) -> int: ...


class OurPolicy:
    """The object that decides in the cluster."""

    period_s = 1.0

    def __init__(self, config: AutoscalingConfig) -> None:
        scaled = {VARIANT: Scaled(config=config)}
        self._fleet = Fleet(scaled, calls={}, budget=AutoscalingBudget())
        self.scalings: list[Scaling] = []

    def decide(self, load: VariantLoad, num_ongoing: int) -> int:
        (found,) = self._fleet.decide(
            FleetLoad(
                at_s=load.at_s, window_s=load.window_s, variants={VARIANT: load}, ensembles={}
            )
        )
        if found.is_change:
            self.scalings.append(found)
        return found.num_replicas


class RaysPolicy:
    period_s = 0.5

    def __init__(self, config: StockConfig) -> None:
        self._stock = StockPolicy(config)
        self.scalings: list[Scaling] = []

    def decide(self, load: VariantLoad, num_ongoing: int) -> int:
        return self._stock.decide(
            load.at_s,
            num_ongoing=num_ongoing,
            num_running=load.num_running,
            num_target=load.num_target,
        )


class _Sums:
    """Since the last look."""

    def __init__(self) -> None:
        self.arrived = self.answered = self.in_time = self.served = 0
        self.busy_s = 0.0


class Replicas:
    """Requests are taken in order by whichever replica is free. A replica that is to go finishes
    its request first; one that starts is paid for from the decision on."""

    def __init__(self, workload: Workload, *, num_first: int, counts_from_s: float) -> None:
        self._workload = workload
        self._counts_from_s = counts_from_s
        self._queue: deque[tuple[int, float]] = deque()
        self._done: list[tuple[float, float, float]] = []  # when, arrived, busy
        self._starting: list[float] = []
        self._num_running = self._most = num_first
        self._target = num_first
        self._sums = _Sums()
        self._num_requests = self._num_missed = 0
        self._replica_s = 0.0
        self._paid_until_s = counts_from_s

    @property
    def num_all(self) -> int:
        """Those that are paid for: running, starting, or busy with their last request."""
        return max(self._num_running, len(self._done)) + len(self._starting)

    def run(self, policy: Policy) -> Result:
        arrivals = self._workload.arrivals
        next_look_s = policy.period_s
        index = 0
        while index < len(arrivals) or self._queue or self._done:
            arrives_s = arrivals[index] if index < len(arrivals) else float("inf")
            done_s = self._done[0][0] if self._done else float("inf")
            starts_s = self._starting[0] if self._starting else float("inf")
            now_s = min(arrives_s, done_s, starts_s, next_look_s)
            if now_s == next_look_s:
                self._pay(now_s)
                self._look(policy, now_s)
                next_look_s += policy.period_s
            elif now_s == starts_s:
                self._starting.pop(0)
                self._num_running += 1
            elif now_s == done_s:
                self._finish()
            else:
                self._sums.arrived += 1
                self._queue.append((index, now_s))
                index += 1
            self._take(now_s)
        return Result(
            num_requests=self._num_requests,
            num_missed=self._num_missed,
            replica_s=self._replica_s,
            most_replicas=self._most,
        )

    def _take(self, now_s: float) -> None:
        while self._queue and len(self._done) < self._num_running:
            index, arrived_s = self._queue.popleft()
            busy_s = self._workload.service_s(index)
            heapq.heappush(self._done, (now_s + busy_s, arrived_s, busy_s))

    def _finish(self) -> None:
        done_s, arrived_s, busy_s = heapq.heappop(self._done)
        is_in_time = done_s - arrived_s <= self._workload.slo_s
        self._sums.answered += 1
        self._sums.in_time += is_in_time
        self._sums.served += 1
        self._sums.busy_s += busy_s
        if arrived_s >= self._counts_from_s:
            self._num_requests += 1
            self._num_missed += not is_in_time

    def _look(self, policy: Policy, now_s: float) -> None:
        sums, self._sums = self._sums, _Sums()
        load = VariantLoad(
            at_s=now_s,
            window_s=policy.period_s,
            num_arrived=sums.arrived,
            num_waiting=len(self._queue),
            num_running=self._num_running,
            num_target=self._target,
            num_answered=sums.answered,
            num_in_time=sums.in_time,
            busy_s=sums.busy_s,
            num_served=sums.served,
        )
        target = policy.decide(load, num_ongoing=len(self._queue) + len(self._done))
        more = target - self._num_running - len(self._starting)
        for _ in range(more):
            self._starting.append(now_s + self._workload.startup_s)
        for _ in range(-more):
            # Those that have not started yet go first.
            if self._starting:
                self._starting.pop()
            else:
                self._num_running -= 1
        self._target = target
        self._most = max(self._most, self.num_all)

    def _pay(self, now_s: float) -> None:
        if now_s > self._paid_until_s:
            self._replica_s += self.num_all * (now_s - self._paid_until_s)
            self._paid_until_s = now_s
