"""A batch in the making: who fits, who cannot be done in time, and whether it should leave now."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

from cluster.scheduling.batch_cost import BatchCost
from cluster.scheduling.decision import Queued

P = TypeVar("P")

WORTH = 0.9
"""With a full batch waiting, a request that forces a smaller batch is run only if that batch still
does this share of the full one's rows per second; otherwise it would cost others their deadline.
Source: Nexus (SOSP'19), early drop."""


class Draft(Generic[P]):
    """Requests are offered in the order of their turn. Nothing leaves the queue here."""

    def __init__(
        self, *, now_s: float, limit: int, sizes: frozenset[int], curve: BatchCost | None
    ) -> None:
        self.items: list[Queued[P]] = []
        self.hopeless: list[tuple[Queued[P], str]] = []
        self.backlog_rows = 0
        self._now_s = now_s
        self._limit = limit
        self._room = limit
        self._sizes = sizes
        self._curve = curve
        self._full_cost_s = curve.safe_s(limit) if curve is not None else 0.0
        self._rows = 0
        self._shape: Hashable = None
        self._closed_by = ""
        self._preferred = (0, 0)
        self._oldest_s = inf
        self._first_deadline_s = inf

    def offer(self, item: Queued[P]) -> bool:
        """False when nothing more can join."""
        rows = self._rows + item.rows
        if self.items:
            if item.shape_key != self._shape or rows > self._limit:
                self._closed_by = "the next request does not fit this batch"
                return False
        else:
            self._shape = item.shape_key
        if item.deadline_s - self._now_s < self._full_cost_s:
            why_not = self._make_room(item)
            if why_not:
                self.hopeless.append((item, why_not))
                return True
        if rows > self._room and self.items:
            self._closed_by = "a deadline leaves no time for a larger batch"
            return False
        self.items.append(item)
        self._rows = rows
        if rows in self._sizes:
            self._preferred = (rows, len(self.items))
        if item.arrived_s < self._oldest_s:
            self._oldest_s = item.arrived_s
        if item.deadline_s < self._first_deadline_s:
            self._first_deadline_s = item.deadline_s
        return rows < self._limit

    def leaves_s(self, delay_s: float) -> float:
        """When it leaves if nobody joins: after the delay, or while its deadlines can be met."""
        delayed_s = self._oldest_s + delay_s
        if self._curve is None or self._first_deadline_s == inf:
            return delayed_s
        return min(delayed_s, self._first_deadline_s - self._curve.safe_s(self._rows + 1))

    def close(self, delay_s: float) -> tuple[int, str]:
        """How many of `items` leave now and why; 0 to wait."""
        preferred_rows, preferred_count = self._preferred
        if self._rows >= self._limit:
            return len(self.items), f"{self._rows} rows, a full batch"
        if preferred_count:
            return preferred_count, f"{preferred_rows} rows, a preferred size"
        if self._closed_by:
            return len(self.items), self._closed_by
        if self._oldest_s + delay_s <= self._now_s:
            return len(self.items), "the oldest request has waited its delay"
        if self.leaves_s(delay_s) <= self._now_s:
            return len(self.items), "a deadline leaves no time to wait"
        return 0, "for more rows"

    def _make_room(self, item: Queued[P]) -> str:
        """Keep the batch small enough for this deadline; or why the request is not run at all."""
        curve = self._curve
        assert curve is not None
        left_s = item.deadline_s - self._now_s
        if curve.safe_s(item.rows) > left_s:
            return "it cannot be computed in the time left"
        room = curve.fit(left_s, self._limit)
        if room < self._limit <= self.backlog_rows:
            full = self._limit / max(curve.mean_s(self._limit), 1e-9)
            if room / max(curve.mean_s(room), 1e-9) < WORTH * full:
                return "the time left would force a batch too small for those who wait"
        if room < self._room and room >= self._rows + item.rows:
            self._room = room
        elif room < self._rows + item.rows:
            # It does not fit behind those before it; the next batch starts with it.
            self._room = self._rows
        return ""
