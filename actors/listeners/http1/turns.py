"""How much one turn of the event loop reads."""

from __future__ import annotations

import asyncio
from typing import Protocol

MAX_READS = 768
"""Reads of one turn after which every connection that was read waits for the next one. libuv asks
the kernel for 1024 events at once and, while it gets so many, asks again (48 times) before timers
and callbacks have their turn. Measured without this, at twice the capacity with a thousand
connections: turns of 4.8 seconds, in which no deadline, health check or routing table came through.
"""


class Paused(Protocol):
    """A connection that may be told to wait."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Turns:
    """One per listener, on its loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._num_read = 0
        self._paused: list[Paused] = []

    def read(self, connection: Paused) -> None:
        """A connection was read: before what came is looked at."""
        self._num_read += 1
        if self._num_read == 1:
            # Runs when the poll is over.
            self._loop.call_soon(self._end)
        elif self._num_read > MAX_READS:
            connection.pause()
            self._paused.append(connection)

    def _end(self) -> None:
        self._num_read = 0
        paused, self._paused = self._paused, []
        for connection in paused:
            connection.resume()
