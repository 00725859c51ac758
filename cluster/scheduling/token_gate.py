"""How much a language engine holds at once, and how much may wait in front of it.

The engine's own queue has no bound: what it is given it keeps, with its prompt, until its turn.
So no more than it computes together is handed over, and the rest waits here, where it can be
refused, expire or leave for nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster.config.language.settings import PromptQueueConfig
from cluster.errors import Overloaded

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[Item]):
    """`num_choices` take a place each; `num_tokens` counts prompt and allowed answer. `level`: 1
    goes first."""

    item: Item
    num_choices: int
    num_tokens: int
    level: int = 1


class TokenGate(Generic[Item]):
    """`places`: choices that the engine computes together. First come, first served within a
    level."""

    def __init__(self, config: PromptQueueConfig, *, places: int) -> None:
        self._config = config
        self._places = places
        self._waiting: deque[Work[Item]] = deque()
        self.num_running = 0
        self.waiting_tokens = 0

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def enter(self, work: Work[Item]) -> bool:
        """Whether it may go to the engine now; else it waits for its turn (`ready`).

        Raises: Overloaded when too many requests or tokens wait.
        """
        is_next = not self._waiting or work.level < self._waiting[0].level
        if is_next and self._has_room(work):
            self.num_running += work.num_choices
            return True
        limits = self._config
        if len(self._waiting) >= limits.max_requests:
            raise Overloaded(
                f"{len(self._waiting)} requests wait for the model, the most that may",
                retry_after_s=1,
            )
        if self.waiting_tokens + work.num_tokens > limits.max_tokens:
            raise Overloaded(
                f"{self.waiting_tokens} tokens wait for the model and this request has "
                f"{work.num_tokens}; at most {limits.max_tokens} may",
                retry_after_s=1,
            )
        place = len(self._waiting)
        while place and self._waiting[place - 1].level > work.level:
            place -= 1
        self._waiting.insert(place, work)
        self.waiting_tokens += work.num_tokens
        return False

    def leave(self, work: Work[Item]) -> None:
        """It was let through and is done."""
        self.num_running -= work.num_choices

    def withdraw(self, work: Work[Item]) -> bool:
        """It need not be done any more; False when it does not wait (any more)."""
        if work not in self._waiting:
            return False
        self._waiting.remove(work)
        self.waiting_tokens -= work.num_tokens
        return True

    def ready(self) -> list[Work[Item]]:
        """Those whose turn it is now; each goes to the engine."""
        found = []
        while self._waiting and self._has_room(self._waiting[0]):
            work = self._waiting.popleft()
            self.waiting_tokens -= work.num_tokens
            self.num_running += work.num_choices
            found.append(work)
        return found

    def _has_room(self, work: Work[Item]) -> bool:
        # More choices than there are places would wait for ever: they go when nobody else runs.
        return not self.num_running or self.num_running + work.num_choices <= self._places
