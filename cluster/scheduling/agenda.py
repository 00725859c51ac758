"""Which request's time is up next."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

from cluster.scheduling.decision import Queued

P = TypeVar("P")

SPARE = 16
"""Kept beyond those that wait, so that tidying costs little when few wait."""


class Agenda(Generic[P]):
    """A heap of times. O(log n) per request, and O(1) where times rise with arrivals.

    Requests that left the queue are skipped when they are met, and cleared out before they are
    half of what is kept: what is kept here keeps its tensors in memory. `is_current` says whether a
    request still waits for this time.
    """

    def __init__(self, is_current: Callable[[Queued[P]], bool]) -> None:
        self._is_current = is_current
        self._times: list[tuple[float, int, Queued[P]]] = []
        self._num_added = 0

    def add(self, time_s: float, item: Queued[P], num_waiting: int) -> None:
        """`num_waiting`: how many are in the queue now."""
        if time_s == inf:
            return
        self._num_added += 1
        heapq.heappush(self._times, (time_s, self._num_added, item))
        if len(self._times) > 2 * num_waiting + SPARE:
            self._times = [entry for entry in self._times if self._is_current(entry[2])]
            heapq.heapify(self._times)

    def next_s(self) -> float:
        """Infinite when there is none."""
        times = self._times
        while times and not self._is_current(times[0][2]):
            heapq.heappop(times)
        return times[0][0] if times else inf

    def due(self, now_s: float) -> list[Queued[P]]:
        """Take out those whose time has come."""
        found: list[Queued[P]] = []
        while self.next_s() <= now_s:
            found.append(heapq.heappop(self._times)[2])
        return found
