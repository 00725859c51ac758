"""Identical requests that are under way share one computation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster.errors import DeadlineExceeded

Result = TypeVar("Result")
Key = TypeVar("Key")


@dataclass(slots=True, eq=False)
class _Flight(Generic[Result]):
    task: asyncio.Task[Result]
    num_waiting: int = 0


class Flights(Generic[Key, Result]):
    """Lives on one event loop. The work of a key is cancelled when its last waiter has left."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._flights: dict[Key, _Flight[Result]] = {}

    async def join(
        self, key: Key, deadline_s: float, work: Callable[[], Awaitable[Result]]
    ) -> tuple[Result, bool]:
        """The result, and whether this caller's own work made it. An error is everybody's.

        `deadline_s` is on the loop's clock: the work keeps the deadline of who began it, and who
        joined it begins anew if that one was too short for the work.
        Raises: what the work raises; DeadlineExceeded.
        """
        while True:
            flight = self._flights.get(key)
            is_own = flight is None
            if flight is None:
                flight = self._begin(key, work)
            try:
                return await self._wait(key, flight, deadline_s), is_own
            except DeadlineExceeded:
                if is_own or self._loop.time() >= deadline_s:
                    raise

    def _begin(self, key: Key, work: Callable[[], Awaitable[Result]]) -> _Flight[Result]:
        async def run() -> Result:
            try:
                return await work()
            finally:
                # At once: whoever comes after the end must not find it.
                self._end(key, flight)

        flight = self._flights[key] = _Flight(self._loop.create_task(run()))
        return flight

    async def _wait(self, key: Key, flight: _Flight[Result], deadline_s: float) -> Result:
        flight.num_waiting += 1
        try:
            async with asyncio.timeout_at(deadline_s):
                return await asyncio.shield(flight.task)
        except TimeoutError:
            raise DeadlineExceeded(
                "Request timeout expired: the deadline passed before the answer came"
            ) from None
        finally:
            flight.num_waiting -= 1
            if flight.num_waiting == 0 and not flight.task.done():
                self._end(key, flight)
                flight.task.cancel()

    def _end(self, key: Key, flight: _Flight[Result]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
