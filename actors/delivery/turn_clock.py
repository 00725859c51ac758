"""When the requests that a turn of the event loop reads came to their sockets."""

from __future__ import annotations

import asyncio

BUSY_S = 0.002
"""A poll that comes back so soon after the turn's end found its sockets ready: nobody slept.
uvloop's clock has a resolution of a millisecond, and what was put off to the turn's end takes one.
"""


class TurnClock:
    """One per event loop. While a turn computes, what comes waits in its socket, unseen: under a
    backlog of hundreds of connections for longer than all that follows. Level-triggered polling
    bounds it: what this turn reads came after the last turn's poll, or that would have read it. In
    the mean it waited for half of that turn, and nothing where the loop slept in between.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_under_way = False
        self._began_s = 0.0
        self._ended_s = 0.0
        self._arrived_s = 0.0

    def arrived_s(self) -> float:
        """On the loop's clock, of a request that is read now."""
        if not self._is_under_way:
            self._begin()
        return self._arrived_s

    def _begin(self) -> None:
        began_s = self._loop.time()
        was_busy = began_s - self._ended_s <= BUSY_S
        self._arrived_s = (began_s + self._began_s) / 2 if was_busy else began_s
        self._began_s = began_s
        self._is_under_way = True
        # Runs before the next poll.
        self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._is_under_way = False
        self._ended_s = self._loop.time()
