"""A whole service in virtual time: the split of an experiment, the door's choice of a replica,
admission, queue and batches of each replica, and the policy that changes their number.

Everything that decides is what decides in production; only engines, clocks and the start of
replicas are simulated. So what one of them does to another can be asked: batches grow while a
replica starts, admission refuses what the autoscaler came too late for.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf

from cluster.control.autoscaling.load import VariantLoad
from cluster.routing.split import Arm, choose_arm
from cluster.simulation.service.policies import FleetPolicy, Unchanged
from cluster.simulation.service.replica import Replica, SimulatedCall, SimulatedVariant

EXPERIMENT = "simulated"
HELD_S = 600.0
"""How long after the last call one may be held for a replica that nobody starts."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of a variant's calls: every one is in exactly one of the four. `replica_s`: of
    all replicas, those that start or finish their last batch among them."""

    in_time: int = 0
    late: int = 0
    refused: int = 0
    expired: int = 0
    replica_s: float = 0.0
    most_replicas: int = 0
    batch_rows: Counter[int] = field(default_factory=Counter)

    @property
    def num_calls(self) -> int:
        return self.in_time + self.late + self.refused + self.expired

    @property
    def attainment(self) -> float:
        return self.in_time / self.num_calls if self.num_calls else 1.0

    @property
    def mean_rows(self) -> float:
        batches = sum(self.batch_rows.values())
        return sum(n * times for n, times in self.batch_rows.items()) / batches if batches else 0.0


class _Fleet:
    """A variant's replicas. While there are none its calls are held, not refused."""

    def __init__(self, variant: SimulatedVariant) -> None:
        self.variant = variant
        self.replicas = [Replica(variant) for _ in range(variant.num_replicas)]
        self.leaving: list[Replica] = []
        self.starting: list[int] = []  # the number of each one's event
        self.target = variant.num_replicas
        self.held: deque[int] = deque()
        self.tally = Tally(most_replicas=variant.num_replicas)
        self.window = Tally()
        self.num_arrived = 0
        self.busy_s = 0.0
        self.num_rows = 0

    @property
    def num_paid(self) -> int:
        return len(self.replicas) + len(self.leaving) + len(self.starting)

    @property
    def num_waiting(self) -> int:
        return len(self.held) + sum(each.num_waiting for each in self.replicas + self.leaving)

    @property
    def num_ongoing(self) -> int:
        return len(self.held) + sum(each.num_open for each in self.replicas + self.leaving)

    def load(self, now_s: float, window_s: float) -> VariantLoad:
        """And a new window begins."""
        seen, self.window = self.window, Tally()
        arrived, self.num_arrived = self.num_arrived, 0
        busy_s, self.busy_s = self.busy_s, 0.0
        num_rows, self.num_rows = self.num_rows, 0
        batching = self.variant.batching
        most = 1 if batching.mode == "off" else batching.max_batch_size
        return VariantLoad(
            at_s=now_s,
            window_s=window_s,
            num_arrived=arrived,
            num_waiting=self.num_waiting,
            num_running=len(self.replicas),
            num_target=self.target,
            num_answered=seen.in_time + seen.late,
            num_in_time=seen.in_time,
            busy_s=busy_s,
            num_served=seen.in_time + seen.late,
            num_rows=num_rows,
            batch_s={rows: self.variant.batch_s(rows) for rows in {1, most}} if most > 1 else {},
        )


class Service:
    """`arms`: the weight of each variant; a call's `key` decides, else a draw from `seed`.

    A call is in time when it was answered within `slo_s`; whether it is given up earlier is for its
    own deadline to say.
    """

    def __init__(
        self,
        variants: Sequence[SimulatedVariant],
        *,
        slo_s: float,
        arms: Mapping[str, float] | None = None,
        policy: FleetPolicy | None = None,
        seed: int = 0,
    ) -> None:
        weights = arms or {each.name: 1.0 for each in variants}
        self._arms = tuple(Arm(variant=name, weight=weight) for name, weight in weights.items())
        self._fleets = {each.name: _Fleet(each) for each in variants}
        self._policy = policy or Unchanged()
        self._slo_s = slo_s
        self._draw = random.Random(seed)
        self._calls: list[SimulatedCall] = []
        self._events: list[tuple[float, int, _Fleet, Replica | None]] = []
        self._numbers = count()
        self._paid_until_s = 0.0

    def run(self, calls: Iterable[SimulatedCall]) -> dict[str, Tally]:
        """What became of every call, by variant. `calls` in the order of their arrival."""
        next_look_s = self._policy.period_s
        for call in calls:
            while next_look_s <= call.arrives_s:
                self._until(next_look_s)
                self._look(next_look_s)
                next_look_s += self._policy.period_s
            self._until(call.arrives_s)
            self._arrive(call)
        give_up_s = next_look_s + HELD_S
        while self._events or any(fleet.held for fleet in self._fleets.values()):
            self._until(next_look_s)
            self._look(next_look_s)
            next_look_s += self._policy.period_s
            if next_look_s > give_up_s and not self._events:
                break
        for fleet in self._fleets.values():
            fleet.tally.expired += len(fleet.held)
        return {name: fleet.tally for name, fleet in self._fleets.items()}

    def _until(self, end_s: float) -> None:
        while self._events and self._events[0][0] <= end_s:
            now_s, number, fleet, replica = heappop(self._events)
            if replica is None:
                if number in fleet.starting:
                    self._start(fleet, number, now_s)
                continue
            if replica.running is not None:
                if replica.running.ends_s > now_s:
                    continue  # it was to wait no longer than until now, and has begun earlier
                self._finish(fleet, replica, now_s)
            self._turn(fleet, replica, now_s)

    def _arrive(self, call: SimulatedCall) -> None:
        number = len(self._calls)
        self._calls.append(call)
        choice = choose_arm(
            self._arms, experiment=EXPERIMENT, key=call.key, draw=self._draw.random()
        )
        fleet = self._fleets[choice.variant]
        fleet.num_arrived += 1
        self._send(fleet, number, call.arrives_s)

    def _send(self, fleet: _Fleet, number: int, now_s: float) -> None:
        """To the replica with the fewest open calls, as a door does."""
        if not fleet.replicas:
            fleet.held.append(number)
            return
        replica = min(fleet.replicas, key=lambda each: each.num_open)
        if replica.take(number, self._calls[number], now_s):
            fleet.tally.refused += 1
        elif replica.running is None:
            self._turn(fleet, replica, now_s)

    def _turn(self, fleet: _Fleet, replica: Replica, now_s: float) -> None:
        expired, until_s = replica.next(now_s)
        fleet.tally.expired += len(expired)
        if until_s < inf:
            heappush(self._events, (until_s, next(self._numbers), fleet, replica))
        elif replica.is_leaving:
            self._pay(now_s)
            fleet.leaving.remove(replica)

    def _finish(self, fleet: _Fleet, replica: Replica, now_s: float) -> None:
        batch = replica.finish(now_s)
        fleet.busy_s += fleet.variant.batch_s(batch.rows)
        fleet.num_rows += batch.rows
        fleet.tally.batch_rows[batch.rows] += 1
        for number in batch.calls:
            is_in_time = now_s - self._calls[number].arrives_s <= self._slo_s + 1e-9
            for tally in (fleet.tally, fleet.window):
                tally.in_time += is_in_time
                tally.late += not is_in_time

    def _start(self, fleet: _Fleet, number: int, now_s: float) -> None:
        fleet.starting.remove(number)
        fleet.replicas.append(Replica(fleet.variant))
        held, fleet.held = fleet.held, deque()
        for waiting in held:
            self._send(fleet, waiting, now_s)

    def _look(self, now_s: float) -> None:
        self._pay(now_s)
        for fleet in self._fleets.values():
            self._expire_held(fleet, now_s)
        loads = {n: f.load(now_s, self._policy.period_s) for n, f in self._fleets.items()}
        ongoing = {name: fleet.num_ongoing for name, fleet in self._fleets.items()}
        for name, target in self._policy.decide(now_s, loads, ongoing).items():
            self._scale(self._fleets[name], target, now_s)

    def _expire_held(self, fleet: _Fleet, now_s: float) -> None:
        alive = deque(n for n in fleet.held if self._ends_s(n) > now_s)
        fleet.tally.expired += len(fleet.held) - len(alive)
        fleet.held = alive

    def _ends_s(self, number: int) -> float:
        call = self._calls[number]
        return call.arrives_s + call.deadline_s

    def _scale(self, fleet: _Fleet, target: int, now_s: float) -> None:
        fleet.target = target
        more = target - len(fleet.replicas) - len(fleet.starting)
        for _ in range(more):
            number = next(self._numbers)
            fleet.starting.append(number)
            heappush(self._events, (now_s + fleet.variant.startup_s, number, fleet, None))
        for _ in range(-more):
            # Those that have not started yet go first, then the least busy.
            if fleet.starting:
                fleet.starting.pop()
                continue
            replica = min(fleet.replicas, key=lambda each: each.num_open)
            fleet.replicas.remove(replica)
            if replica.num_open:
                replica.is_leaving = True
                fleet.leaving.append(replica)
        fleet.tally.most_replicas = max(fleet.tally.most_replicas, fleet.num_paid)

    def _pay(self, now_s: float) -> None:
        for fleet in self._fleets.values():
            fleet.tally.replica_s += fleet.num_paid * (now_s - self._paid_until_s)
        self._paid_until_s = now_s
