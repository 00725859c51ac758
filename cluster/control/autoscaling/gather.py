"""What doors and replicas tell, added up into the load that is decided upon."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.control.autoscaling.fleet import FleetLoad
from cluster.control.autoscaling.load import VariantLoad

ROWS_SHARE = 0.2
"""How much of a new window the mean rows of a request take over."""
DOOR_GONE_S = 5.0
"""What a door said of its queues longer ago than this is not true any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLoad:
    """One variant at one door: what came since its last report, and what is there now. Those that
    found no replica in time are among `num_answered`, and not `num_in_time`."""

    num_arrived: int = 0
    rows_waiting: int = 0
    rows_under_way: int = 0
    num_answered: int = 0
    num_in_time: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorReport:
    """`ensembles`: requests that came to each since the last report."""

    variants: Mapping[str, DoorLoad]
    ensembles: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentReport:
    """What Serve says of a variant. `busy_s`, `num_served` and `num_rows`: by replica, since it
    started; `memory_bytes`: of the largest of them; `batch_s`: rows -> what the slowest takes."""

    num_running: int
    num_target: int
    busy_s: Mapping[str, float]
    num_served: Mapping[str, float]
    memory_bytes: int = 0
    num_rows: Mapping[str, float] = field(default_factory=dict)
    batch_s: Mapping[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Sums:
    num_arrived: int = 0
    num_answered: int = 0
    num_in_time: int = 0
    busy_s: float = 0.0
    num_served: float = 0.0
    num_rows: float = 0.0


@dataclass(slots=True)
class Gatherer:
    """`rows_at_once`: variant -> rows that one replica computes together."""

    rows_at_once: Mapping[str, int]
    _sums: defaultdict[str, _Sums] = field(default_factory=lambda: defaultdict(_Sums))
    _ensembles: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _queues: dict[str, tuple[float, Mapping[str, DoorLoad]]] = field(default_factory=dict)
    _serve: dict[str, DeploymentReport] = field(default_factory=dict)
    _done: dict[tuple[str, str], tuple[float, float, float]] = field(default_factory=dict)
    _rows: dict[str, float] = field(default_factory=dict)
    _looked_s: float | None = None

    def door(self, door: str, report: DoorReport, at_s: float) -> None:
        self._queues[door] = (at_s, report.variants)
        for name, each in report.variants.items():
            sums = self._sums[name]
            sums.num_arrived += each.num_arrived
            sums.num_answered += each.num_answered
            sums.num_in_time += each.num_in_time
        for name, count in report.ensembles.items():
            self._ensembles[name] += count

    def serve(self, variant: str, report: DeploymentReport) -> None:
        is_first = variant not in self._serve
        self._serve[variant] = report
        sums = self._sums[variant]
        for replica, busy_s in report.busy_s.items():
            served = report.num_served.get(replica, 0.0)
            rows = report.num_rows.get(replica, served)
            known = self._done.get((variant, replica))
            if known is None and not is_first:
                known = (0.0, 0.0, 0.0)  # it started since the last look
            # The first word of what ran before we looked says nothing of when it was busy.
            if known is not None and busy_s >= known[0]:
                sums.busy_s += busy_s - known[0]
                sums.num_served += served - known[1]
                sums.num_rows += rows - known[2]
            self._done[variant, replica] = (busy_s, served, rows)
        for place in [p for p in self._done if p[0] == variant and p[1] not in report.busy_s]:
            del self._done[place]

    def look(self, at_s: float) -> FleetLoad | None:
        """Everything since the last look; None for the first. What Serve has not told of yet, and
        everything while no door tells, is left out."""
        window_s = None if self._looked_s is None else at_s - self._looked_s
        self._looked_s = at_s
        sums, self._sums = self._sums, defaultdict(_Sums)
        ensembles, self._ensembles = self._ensembles, defaultdict(int)
        self._queues = {
            door: found for door, found in self._queues.items() if at_s - found[0] < DOOR_GONE_S
        }
        if not window_s or not self._queues:
            return None
        return FleetLoad(
            at_s=at_s,
            window_s=window_s,
            variants={
                name: self._load(name, seen, sums[name], at_s, window_s)
                for name, seen in self._serve.items()
            },
            ensembles=dict(ensembles),
        )

    def _load(
        self, name: str, seen: DeploymentReport, sums: _Sums, at_s: float, window_s: float
    ) -> VariantLoad:
        queues = [queue[name] for _, queue in self._queues.values() if name in queue]
        computing = seen.num_running * self.rows_at_once.get(name, 1)
        under_way = sum(queue.rows_under_way for queue in queues)
        waiting = sum(queue.rows_waiting for queue in queues) + max(0, under_way - computing)
        is_measured = sums.num_served > 0
        if is_measured:
            seen_rows = max(1.0, sums.num_rows / sums.num_served)
            known = self._rows.get(name, seen_rows)
            self._rows[name] = known + ROWS_SHARE * (seen_rows - known)
        return VariantLoad(
            at_s=at_s,
            window_s=window_s,
            num_arrived=sums.num_arrived,
            # Rows wait; what is known of is the time of a request.
            num_waiting=math.ceil(waiting / self._rows.get(name, 1.0)),
            num_running=seen.num_running,
            num_target=seen.num_target,
            num_answered=sums.num_answered,
            num_in_time=sums.num_in_time,
            busy_s=sums.busy_s if is_measured else None,
            num_served=round(sums.num_served),
            num_rows=round(sums.num_rows),
            batch_s=seen.batch_s,
            memory_bytes=seen.memory_bytes,
        )
