"""What a queue holds and what it decides: values that can be printed and compared."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from cluster.errors import DeadlineExceeded, Overloaded, SquadronError

if TYPE_CHECKING:
    from cluster.scheduling.lane import Shelf

P = TypeVar("P")


@dataclass(slots=True, kw_only=True, eq=False)
class Queued(Generic[P]):
    """A request in the queue. Only requests of equal `shape_key` share a batch.

    `deadline_s` ends queue and execution; `priority` and `tenant` as the caller gave them.
    `waited_s`: before it came to this queue, in another one; both count for the level's timeout.
    `weight` is what the tenant is charged (tokens, say); 0 charges rows. Not frozen: the queue
    notes its place in it, which makes taking it out O(1).
    """

    payload: P
    rows: int
    arrived_s: float
    deadline_s: float = inf
    shape_key: Hashable = None
    priority: int = 0
    tenant: str = ""
    weight: float = 0.0
    waited_s: float = 0.0
    shelf: Shelf[P] | None = field(default=None, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Generic[P]):
    """A request that left the queue without being run, and what its caller is told."""

    item: Queued[P]
    reason: str
    is_deadline: bool = True

    def error(self) -> SquadronError:
        """504 where the caller's deadline is the cause, 503 where the queue's own policy is."""
        if self.is_deadline:
            return DeadlineExceeded(f"Request timeout expired: {self.reason}")
        return Overloaded("Request timeout expired", reason=self.reason, retry_after_s=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Generic[P]):
    """Run these now, in this order. `is_probe`: in spite of what they are thought to cost."""

    batch: tuple[Queued[P], ...]
    reason: str
    is_probe: bool = False
    dropped: tuple[Dropped[P], ...] = ()

    @property
    def rows(self) -> int:
        return sum(item.rows for item in self.batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait(Generic[P]):
    """Decide again at `until_s`, or when a request arrives."""

    until_s: float
    reason: str
    dropped: tuple[Dropped[P], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle(Generic[P]):
    """Nothing is queued."""

    dropped: tuple[Dropped[P], ...] = ()
