"""What waits at a door and what it refused, kept in memory and written with the door's counts.

A request that is answered costs nothing here; only a refusal is counted by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from cluster.observability.door_metrics import DoorMetrics, Refusal


class Queue(Protocol):
    """What is asked of a dispatcher when the counts are written."""

    rows_under_way: int

    @property
    def rows_waiting(self) -> int: ...


class QueueTally:
    """One a door, on its loop."""

    def __init__(self, metrics: DoorMetrics) -> None:
        self._metrics = metrics
        self._refused: Counter[tuple[str, Refusal]] = Counter()
        self._known: set[str] = set()

    def refuse(self, variant: str, reason: Refusal) -> None:
        self._refused[variant, reason] += 1

    def write(self, queues: Iterable[tuple[str, Queue]]) -> None:
        """Each variant's queues as they are now, the refusals since the last time."""
        waiting: Counter[str] = Counter(dict.fromkeys(self._known, 0))
        under_way: Counter[str] = Counter()
        for variant, queue in queues:
            waiting[variant] += queue.rows_waiting
            under_way[variant] += queue.rows_under_way
        self._known.update(waiting)
        for variant in waiting:
            self._metrics.rows_waiting.labels(variant).set(waiting[variant])
            self._metrics.rows_under_way.labels(variant).set(under_way[variant])
        refused, self._refused = self._refused, Counter()
        for (variant, reason), count in refused.items():
            self._metrics.refused.labels(variant, reason).inc(count)
