"""Gives up callers that take nothing, or next to nothing, of what was written to them."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from math import inf

MIN_READ_BYTES_PER_S = 1024
"""An answer that is taken slower holds a connection and its memory for nothing."""


class SlowReader:
    """Looks after one connection while it cannot write, and from when it closes until it is closed:
    a transport waits for ever until all that was written is taken.

    A look every `patience_s`, and none while nothing waits to be taken.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_bytes: float = inf
        self._is_paused = False

    def watch(self, transport: asyncio.Transport, *, is_paused: bool = False) -> None:
        """It cannot write (`is_paused`), or is closing. Any number of times."""
        self._transport = transport
        self._is_paused = self._is_paused or is_paused
        if self._timer is None:
            self._waiting_bytes = _waiting_bytes(transport)
            self._timer = self._loop.call_later(self._patience_s, self._look)

    def has_read(self) -> None:
        """It can write again."""
        self._is_paused = False
        self._waiting_bytes = inf

    def forget(self) -> None:
        """The connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._transport = None

    def _look(self) -> None:
        self._timer = None
        transport = self._transport
        if transport is None or not (self._is_paused or transport.is_closing()):
            return
        waiting_bytes = _waiting_bytes(transport)
        if waiting_bytes + self._patience_s * MIN_READ_BYTES_PER_S > self._waiting_bytes:
            transport.abort()
            return
        self._waiting_bytes = waiting_bytes
        self._timer = self._loop.call_later(self._patience_s, self._look)


def _waiting_bytes(transport: asyncio.Transport) -> int:
    """What was written and not taken, also of what the kernel holds: megabytes that it passes on
    one by one, while the transport hands it none."""
    socket = transport.get_extra_info("socket")
    in_kernel = 0
    if socket is not None and socket.fileno() >= 0:
        told = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        in_kernel = struct.unpack("i", told)[0]
    num_bytes: int = transport.get_write_buffer_size() + in_kernel
    return num_bytes
