"""How much one turn of the event loop reads, and who is read less often while that is too much."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

MAX_READS = 768
"""Reads of one turn after which every connection that was read waits for the next one. libuv asks
the kernel for 1024 events at once and, while it gets so many, asks again (48 times) before timers
and callbacks have their turn. Measured without this, at twice the capacity with a thousand
connections: turns of 4.8 seconds, in which no deadline, health check or routing table came through.
"""

LONG_S = 0.02
"""A turn that took longer has let many wait in their sockets."""

REST_S = 1.0
"""How long a connection is left alone whose request was refused in such times: the refusal says
`Retry-After: 1`. To read, decode and refuse costs half of what an answer does, so that a door that
refuses all it cannot do answers nobody at three times its capacity; a request that stays in its
socket costs nothing."""


WAKE_S = 0.01
NUM_WOKEN = 64
NUM_WOKEN_IN_LONG_TURNS = 8
"""So many are read again at a time: a thousand that wake together would make another long turn, and
all be refused again."""


class Paused(Protocol):
    """A connection that may be told to wait."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Turns:
    """One per listener, on its loop. `clock` is the loop's if None."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._now_s = clock or self._loop.time
        self._num_read = 0
        self._began_s = 0.0  # Of the turn; between two, when the last one ended.
        self._took_s = 0.0
        self._paused: list[Paused] = []
        self._resting: deque[tuple[float, Paused]] = deque()

    def read(self, connection: Paused) -> None:
        """A connection was read: before what came is looked at."""
        self._num_read += 1
        if self._num_read == 1:
            self._began_s = self._now_s()
            # Runs when the poll is over.
            self._loop.call_soon(self._end)
        elif self._num_read > MAX_READS:
            connection.pause()
            self._paused.append(connection)

    def refused(self, connection: Paused) -> None:
        """It was told that there is too much to do. Between the turns, when a deadline passes or an
        answer comes, the last turn tells how busy this door is, while it is the last."""
        now_s = self._now_s()
        if self._num_read:
            is_busy = max(self._took_s, now_s - self._began_s) >= LONG_S
        else:
            is_busy = self._took_s >= LONG_S and now_s - self._began_s < LONG_S
        if not is_busy:
            return
        connection.pause()
        if not self._resting:
            self._loop.call_later(REST_S, self._wake)
        self._resting.append((now_s + REST_S, connection))

    def _end(self) -> None:
        self._num_read = 0
        now_s = self._now_s()
        self._took_s, self._began_s = now_s - self._began_s, now_s
        paused, self._paused = self._paused, []
        for connection in paused:
            connection.resume()

    def _wake(self) -> None:
        now_s = self._now_s()
        num_left = NUM_WOKEN if self._took_s < LONG_S / 2 else NUM_WOKEN_IN_LONG_TURNS
        while self._resting and self._resting[0][0] <= now_s and num_left:
            self._resting.popleft()[1].resume()
            num_left -= 1
        if self._resting:
            self._loop.call_later(max(self._resting[0][0] - now_s, WAKE_S), self._wake)
