"""Connections of the load generator: plain sockets and one selector."""

from __future__ import annotations

import select
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from types import TracebackType

import httptools

CONNECT_ATTEMPTS = 50
CONNECT_TIMEOUT_S = 5.0
READ_BYTES = 1 << 20
FD_SETSIZE = 1024
"""`select` takes no larger descriptor; a process that has so many waits in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One request, sent over and over."""

    host: str
    port: int
    request: bytes


class Tally:
    """What both loops count. `latencies_s`: of the answers with status 200, as they came."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.latencies_s: list[float] = []

    def count(self, status: int, latency_s: float) -> None:
        self.statuses[status] += 1
        if status == 200:
            self.latencies_s.append(latency_s)

    def num_good(self, slo_ms: float | None) -> int:
        """200s within `slo_ms` (all of them without one)."""
        if slo_ms is None:
            return len(self.latencies_s)
        return sum(1 for latency_s in self.latencies_s if latency_s * 1000 <= slo_ms)


class Connection:
    """One request at a time. `pool.answered` and `pool.lost` hear of each end."""

    def __init__(self, pool: Pool, wire: socket.socket) -> None:
        self.wire = wire
        self.since_s = 0.0
        self.is_busy = False
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._unsent = memoryview(b"")

    def send(self, request: bytes, since_s: float) -> None:
        self.since_s = since_s
        self.is_busy = True
        try:
            num_sent = self.wire.send(request)
        except BlockingIOError:
            num_sent = 0
        except OSError:
            self._pool.lost(self)
            return
        if num_sent < len(request):
            self._unsent = memoryview(request)[num_sent:]
            self._pool.watch(self, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send_rest()
        if events & selectors.EVENT_READ:
            self._read()

    def on_message_complete(self) -> None:
        self.is_busy = False
        status = self._parser.get_status_code()
        self._pool.answered(self, status, stays=self._parser.should_keep_alive())

    def _send_rest(self) -> None:
        try:
            self._unsent = self._unsent[self.wire.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._pool.lost(self)
            return
        if not self._unsent:
            self._pool.watch(self, selectors.EVENT_READ)

    def _read(self) -> None:
        try:
            size = self.wire.recv_into(self._pool.buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size == 0:
            self._pool.lost(self)
            return
        try:
            self._parser.feed_data(self._pool.buffer[:size])
        except httptools.HttpParserError:
            self._pool.lost(self)


def dial(target: Target) -> socket.socket:
    """Raises: OSError when the server does not take a connection within `CONNECT_ATTEMPTS`."""
    for attempt in range(CONNECT_ATTEMPTS):
        try:
            wire = socket.create_connection((target.host, target.port), CONNECT_TIMEOUT_S)
        except OSError:
            # The listen queue is full or the server restarts: that is load too, try again.
            if attempt == CONNECT_ATTEMPTS - 1:
                raise
            time.sleep(0.05)
            continue
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return wire
    raise AssertionError("unreachable")


class Pool:
    """Connections, what waits for one, and what to send next.

    Whoever waits `patience_s` for a connection gives up, and is counted with status 0: nobody sends
    a request whose answer would be late before it left.
    """

    def __init__(
        self,
        target: Target,
        tally: Tally,
        *,
        is_closed_loop: bool,
        patience_s: float = inf,
        connect: Callable[[Target], socket.socket] = dial,
    ) -> None:
        self.target = target
        self.tally = tally
        self.num_sent = 0
        self.buffer = memoryview(bytearray(READ_BYTES))
        self._is_closed_loop = is_closed_loop
        self._patience_s = patience_s
        self._connect = connect
        self._idle: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._all: set[Connection] = set()
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection in self._all:
            connection.wire.close()
        self._selector.close()

    def open(self, num_connections: int) -> None:
        """Raises: OSError."""
        for _ in range(num_connections):
            self._idle.append(self._opened())

    def turn(self, wait_s: float) -> None:
        """Handles what is ready, after at most `wait_s`; `select` waits to the microsecond, a
        selector only to the millisecond."""
        if wait_s > 0 and self._selector.fileno() < FD_SETSIZE:
            if not select.select([self._selector], [], [], wait_s)[0]:
                return
            wait_s = 0.0
        for key, events in self._selector.select(wait_s):
            key.data.ready(events)

    def offer(self, since_s: float) -> None:
        """A request whose intended time has come."""
        if self._idle:
            self._send(self._idle.pop(), since_s)
        else:
            self._waiting.append(since_s)

    def start_closed_loop(self) -> None:
        now_s = time.perf_counter()
        while self._idle:
            self._send(self._idle.pop(), now_s)

    def num_open(self) -> int:
        """Requests without an answer yet."""
        return len(self._waiting) + sum(connection.is_busy for connection in self._all)

    def answered(self, connection: Connection, status: int, *, stays: bool) -> None:
        now_s = time.perf_counter()
        self.tally.count(status, now_s - connection.since_s)
        if not stays:
            connection = self._replaced(connection)
        self._use(connection, now_s)

    def lost(self, connection: Connection) -> None:
        """Its request, if there was one, is counted with status 0; another takes its place."""
        was_busy, connection.is_busy = connection.is_busy, False
        if was_busy:
            self.tally.count(0, 0.0)
        else:
            self._idle.remove(connection)
        self._use(self._replaced(connection), time.perf_counter())

    def watch(self, connection: Connection, events: int) -> None:
        self._selector.modify(connection.wire, events, connection)

    def _opened(self) -> Connection:
        wire = self._connect(self.target)
        wire.setblocking(False)
        connection = Connection(self, wire)
        self._all.add(connection)
        self._selector.register(wire, selectors.EVENT_READ, connection)
        return connection

    def _replaced(self, connection: Connection) -> Connection:
        self._selector.unregister(connection.wire)
        connection.wire.close()
        self._all.discard(connection)
        return self._opened()

    def _use(self, connection: Connection, now_s: float) -> None:
        if self._is_closed_loop:
            self._send(connection, now_s)
            return
        while self._waiting and now_s - self._waiting[0] >= self._patience_s:
            self._waiting.popleft()
            self.tally.count(0, 0.0)
        if self._waiting:
            is_patient = self._patience_s == inf
            since_s = self._waiting.popleft() if is_patient else self._waiting.pop()
            self._send(connection, since_s)
        else:
            self._idle.append(connection)

    def _send(self, connection: Connection, since_s: float) -> None:
        self.num_sent += 1
        connection.send(self.target.request, since_s)
