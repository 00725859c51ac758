"""One replica in virtual time: the production scheduler, arrivals from a list, an engine that is a
function from batch to seconds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Literal

from cluster.errors import CapacityError
from cluster.scheduling.admission import Reject
from cluster.scheduling.decision import Queued, Run, Wait
from cluster.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request: `timeout_s` after `time_s` its caller has no use for the answer any more."""

    time_s: float
    rows: int = 1
    timeout_s: float = inf
    priority: int = 0
    tenant: str = ""
    shape_key: Hashable = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended. `late`: it was computed, and its deadline had passed; `refused`: at the
    door; `dropped`: from the queue. `batch_rows` is 0 when it was not computed."""

    arrival: Arrival
    kind: Literal["in_time", "late", "refused", "dropped"]
    ended_s: float
    batch_rows: int = 0

    @property
    def took_s(self) -> float:
        return self.ended_s - self.arrival.time_s


def simulate(
    arrivals: Iterable[Arrival],
    scheduler: Scheduler[Arrival],
    cost_s: Callable[[int, Hashable], float],
) -> Iterator[Outcome]:
    """Every request's end, in the order of time. `arrivals` rise in time; `cost_s` of a batch's
    rows and shape is asked once a batch. What still waits after the last arrival is run too."""
    coming = iter(arrivals)
    following = next(coming, None)
    running: Run[Arrival] | None = None
    done_s = wake_s = inf
    while following is not None or running is not None or len(scheduler):
        arrives_s = following.time_s if following is not None else inf
        now_s = min(arrives_s, done_s, wake_s)
        if running is not None and now_s == done_s:
            scheduler.finished(now_s)
            yield from _computed(running, now_s)
            running, done_s = None, inf
        elif following is not None and now_s == arrives_s:
            refused = _offer(scheduler, following)
            if refused is not None:
                yield refused
            following = next(coming, None)
        if running is not None:
            continue
        decision = scheduler.decide(now_s)
        for drop in decision.dropped:
            yield Outcome(arrival=drop.item.payload, kind="dropped", ended_s=now_s)
        wake_s = decision.until_s if isinstance(decision, Wait) else inf
        if isinstance(decision, Run):
            running = decision
            done_s = now_s + cost_s(decision.rows, decision.batch[0].shape_key)


def _offer(scheduler: Scheduler[Arrival], arrival: Arrival) -> Outcome | None:
    now_s = arrival.time_s
    verdict = scheduler.admit(
        now_s,
        rows=arrival.rows,
        left_s=arrival.timeout_s,
        priority=arrival.priority,
        tenant=arrival.tenant,
    )
    if isinstance(verdict, Reject):
        return Outcome(arrival=arrival, kind="refused", ended_s=now_s)
    scheduler.arrived(arrival.rows)
    item = Queued(
        payload=arrival,
        rows=arrival.rows,
        arrived_s=now_s,
        deadline_s=now_s + arrival.timeout_s,
        shape_key=arrival.shape_key,
        priority=arrival.priority,
        tenant=arrival.tenant,
    )
    try:
        scheduler.push(item)
    except CapacityError:
        return Outcome(arrival=arrival, kind="refused", ended_s=now_s)
    return None


def _computed(run: Run[Arrival], now_s: float) -> Iterator[Outcome]:
    rows = run.rows
    for item in run.batch:
        kind: Literal["in_time", "late"] = "in_time" if now_s <= item.deadline_s else "late"
        yield Outcome(arrival=item.payload, kind=kind, ended_s=now_s, batch_rows=rows)
