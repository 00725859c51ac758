"""Waiting for one's turn at a language engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cluster.config.language.settings import PromptQueueConfig
from cluster.scheduling.token_gate import TokenGate, Work


class Turnstile:
    """Lives on one event loop; the gate decides, this waits.

    `num_served`: requests that have ended. `clock` only rises."""

    def __init__(
        self,
        config: PromptQueueConfig,
        *,
        places: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.num_served = 0
        self._places = places
        self._clock = clock
        self._busy_s = 0.0
        self._since_s = clock()
        self._gate: TokenGate[asyncio.Future[None]] = TokenGate(config, places=places)

    @property
    def num_waiting(self) -> int:
        return self._gate.num_waiting

    @property
    def num_running(self) -> int:
        return self._gate.num_running

    @property
    def busy_s(self) -> float:
        """Seconds since the start, each by the share of the engine's places that was taken: it
        computes many requests at once, so one of them is busy for its share alone."""
        now_s = self._clock()
        share = min(1.0, self._gate.num_running / self._places)
        self._busy_s += share * (now_s - self._since_s)
        self._since_s = now_s
        return self._busy_s

    @asynccontextmanager
    async def turn(
        self, *, num_choices: int, num_tokens: int, level: int = 1
    ) -> AsyncIterator[None]:
        """`level`: 1 goes first. Whoever is cancelled while waiting is forgotten.

        Raises: Overloaded."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        _ = self.busy_s  # by those that ran until now
        work = Work(item=future, num_choices=num_choices, num_tokens=num_tokens, level=level)
        if not self._gate.enter(work):
            try:
                await future
            except asyncio.CancelledError:
                if not self._gate.withdraw(work):
                    # Its turn came in the same moment.
                    self._leave(work)
                raise
        try:
            yield
        finally:
            self._leave(work)

    def _leave(self, work: Work[asyncio.Future[None]]) -> None:
        _ = self.busy_s
        self.num_served += 1
        self._gate.leave(work)
        for ready in self._gate.ready():
            if not ready.item.done():
                ready.item.set_result(None)
