"""Waiting for one's turn at a language engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cluster.config.language.settings import PromptQueueConfig
from cluster.scheduling.token_gate import TokenGate, Work


class Turnstile:
    """Lives on one event loop; the gate decides, this waits."""

    def __init__(self, config: PromptQueueConfig, *, places: int) -> None:
        self._gate: TokenGate[asyncio.Future[None]] = TokenGate(config, places=places)

    @property
    def num_waiting(self) -> int:
        return self._gate.num_waiting

    @property
    def num_running(self) -> int:
        return self._gate.num_running

    @asynccontextmanager
    async def turn(self, *, num_choices: int, num_tokens: int) -> AsyncIterator[None]:
        """Raises: Overloaded. Whoever is cancelled while waiting is forgotten."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        work = Work(item=future, num_choices=num_choices, num_tokens=num_tokens)
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
        self._gate.leave(work)
        for ready in self._gate.ready():
            if not ready.item.done():
                ready.item.set_result(None)
