"""One replica in virtual time: production's scheduler over an engine whose batches cost what is
said."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.config.variant import BatchingConfig
from cluster.errors import CapacityError
from cluster.scheduling.admission import Reject
from cluster.scheduling.decision import Queued, Run, Wait
from cluster.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedVariant:
    """A batch of n rows takes `first_row_s` + (n - 1) x `next_row_s`; a replica answers `startup_s`
    after the decision that starts it. Without `scaling` it keeps its `num_replicas`."""

    name: str
    first_row_s: float
    next_row_s: float
    batching: BatchingConfig
    num_replicas: int = 1
    startup_s: float = 10.0
    scaling: AutoscalingConfig | None = None

    def batch_s(self, rows: int) -> float:
        return self.first_row_s + (rows - 1) * self.next_row_s


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedCall:
    """`key`: the user whose arm is sticky; `deadline_s`: from its arrival."""

    arrives_s: float
    key: str = ""
    rows: int = 1
    deadline_s: float = inf
    priority: int = 0
    tenant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    calls: tuple[int, ...]
    rows: int
    ends_s: float


class Replica:
    """Calls are known by their number. `num_open`: those sent here that have no answer yet, which
    is what a door goes by."""

    def __init__(self, variant: SimulatedVariant) -> None:
        self._variant = variant
        self._scheduler: Scheduler[int] = Scheduler(variant.batching)
        # What warming up teaches a replica in production.
        for rows in (1, variant.batching.max_batch_size):
            self._scheduler.costs.observe(None, rows, variant.batch_s(rows))
        self.running: Batch | None = None
        self.is_leaving = False
        self.num_open = 0

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler)

    def take(self, number: int, call: SimulatedCall, now_s: float) -> str:
        """Empty when the call waits here now; else why it was refused."""
        left_s = call.arrives_s + call.deadline_s - now_s
        verdict = self._scheduler.admit(
            now_s, rows=call.rows, left_s=left_s, priority=call.priority, tenant=call.tenant
        )
        if isinstance(verdict, Reject):
            return "not admitted"
        self._scheduler.arrived(call.rows)
        item = Queued(
            payload=number,
            rows=call.rows,
            arrived_s=now_s,
            deadline_s=now_s + left_s,
            priority=call.priority,
            tenant=call.tenant,
        )
        try:
            self._scheduler.push(item)
        except CapacityError:
            return "queue full"
        self.num_open += 1
        return ""

    def next(self, now_s: float) -> tuple[tuple[int, ...], float]:
        """The free engine's turn: calls that are given up, and when to ask again (inf: when
        something arrives). `running` says whether a batch was begun."""
        decision = self._scheduler.decide(now_s)
        dropped = tuple(drop.item.payload for drop in decision.dropped)
        self.num_open -= len(dropped)
        if isinstance(decision, Run):
            self.running = Batch(
                calls=tuple(item.payload for item in decision.batch),
                rows=decision.rows,
                ends_s=now_s + self._variant.batch_s(decision.rows),
            )
            return dropped, self.running.ends_s
        return dropped, decision.until_s if isinstance(decision, Wait) else inf

    def finish(self, now_s: float) -> Batch:
        batch = self.running
        assert batch is not None
        self._scheduler.finished(now_s)
        self.running = None
        self.num_open -= len(batch.calls)
        return batch
