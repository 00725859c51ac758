"""The queue of one replica, and when a batch leaves it.

Triton's semantics (model configuration, "dynamic batching"): a batch is decided when the engine is
free, never earlier. If a preferred size can be reached, the largest reachable one leaves at once;
otherwise the batch waits until its oldest request has waited `max_queue_delay_s`, then leaves with
what is there. A request that does not fit (too many rows, another shape) closes the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster.errors import Overloaded

P = TypeVar("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """Sizes count rows, times are seconds; no preferred size means that only a full batch leaves
    before the delay is over."""

    max_batch_size: int
    max_queue_delay_s: float = 0.0
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_size: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Queued(Generic[P]):
    """A request in the queue. Only requests of equal `shape_key` share a batch."""

    payload: P
    rows: int
    arrived_s: float
    deadline_s: float
    shape_key: Hashable = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Generic[P]):
    """Run these now, in this order."""

    batch: tuple[Queued[P], ...]
    reason: str

    @property
    def rows(self) -> int:
        return sum(item.rows for item in self.batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Decide again at `until_s`, or when a request arrives."""

    until_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing is queued."""


class BatchQueue(Generic[P]):
    """First come, first served. Time comes in as an argument (seconds, any monotonic clock)."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.policy = policy
        self._items: deque[Queued[P]] = deque()
        self._sizes = sorted({*policy.preferred_batch_sizes, policy.max_batch_size}, reverse=True)

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: Queued[P]) -> None:
        """Raises: Overloaded when the queue is at `max_queue_size`."""
        if len(self._items) >= self.policy.max_queue_size:
            raise Overloaded(
                f"Exceeds maximum queue size ({self.policy.max_queue_size})",
                queue_size=len(self._items),
                retry_after_s=1,
            )
        self._items.append(item)

    def take_out(self, unwanted: Callable[[Queued[P]], bool]) -> list[Queued[P]]:
        """Remove what nobody waits for any more (deadline passed, caller gone), whole queue."""
        gone = [item for item in self._items if unwanted(item)]
        if gone:
            self._items = deque(item for item in self._items if not unwanted(item))
        return gone

    def expired(self, now_s: float) -> list[Queued[P]]:
        """Remove and return the requests whose deadline has passed."""
        return self.take_out(lambda item: item.deadline_s <= now_s)

    def decide(self, now_s: float) -> Run[P] | Wait | Idle:
        """What a free engine does now. `Run` removes its requests from the queue."""
        if not self._items:
            return Idle()
        reachable, is_closed = self._reachable()
        for size in self._sizes:
            if size in reachable:
                return self._run(reachable[size], f"{size} rows, a preferred size")
        whole = max(reachable.values())
        if is_closed:
            return self._run(whole, "the next request does not fit this batch")
        leaves_s = self._items[0].arrived_s + self.policy.max_queue_delay_s
        if leaves_s <= now_s:
            return self._run(whole, "the oldest request has waited its delay")
        return Wait(until_s=leaves_s, reason="for more rows")

    def _reachable(self) -> tuple[dict[int, int], bool]:
        """Rows of each prefix -> its number of requests; and whether a request closed the batch."""
        rows, shape = 0, self._items[0].shape_key
        found: dict[int, int] = {}
        for count, item in enumerate(self._items, start=1):
            fits = count == 1 or rows + item.rows <= self.policy.max_batch_size
            if not fits or item.shape_key != shape:
                return found, True
            rows += item.rows
            found[rows] = count
        return found, False

    def _run(self, count: int, reason: str) -> Run[P]:
        batch = tuple(self._items.popleft() for _ in range(count))
        return Run(batch=batch, reason=reason)
