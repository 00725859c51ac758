"""Continuous input in batches: items go in one by one, results come out a batch at a time.

Decided with the time that is given; `cluster.client.batch_stream` has the lock, the clock and the
computing function.
"""

from __future__ import annotations

from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")


class BatchStreamCore(Generic[T]):
    """Collects until `max_batch_size` items are there or the first of them waited `timeout_s`."""

    def __init__(self, max_batch_size: int, timeout_s: float) -> None:
        """Raises: ValueError for a size below 1, or a timeout that is negative or no number."""
        if max_batch_size < 1 or not timeout_s >= 0:
            raise ValueError(
                f"a batch stream needs max_batch_size >= 1 and timeout >= 0, "
                f"got {max_batch_size} and {timeout_s}"
            )
        self._max_batch_size = max_batch_size
        self._timeout_s = timeout_s
        self._items: list[T] = []
        self._due_s = inf

    def __len__(self) -> int:
        return len(self._items)

    @property
    def due_s(self) -> float:
        """When what is collected must leave; infinite when nothing is."""
        return self._due_s

    def add(self, item: T, now_s: float) -> list[T] | None:
        """The batch that this item completes, or that is due; else None."""
        if not self._items:
            self._due_s = now_s + self._timeout_s
        self._items.append(item)
        if len(self._items) >= self._max_batch_size:
            return self.take()
        return self.poll(now_s)

    def poll(self, now_s: float) -> list[T] | None:
        """The batch if its timeout is over."""
        return self.take() if self._due_s <= now_s else None

    def take(self) -> list[T] | None:
        """All that is collected, now; None when that is nothing."""
        items, self._items, self._due_s = self._items, [], inf
        return items or None
