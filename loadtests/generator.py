"""HTTP/1.1 load from one process: an open loop for latency, a closed one for capacity only.

Latency counts from the *intended* send time in the open loop, so waiting for a free connection or
for a late generator counts as well. Every answer other than 200 and every lost connection is
counted by status (0: no answer), and its latency is kept out of the histogram of successes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import httptools
from hdrh.histogram import HdrHistogram

from loadtests.latencies import new_histogram
from loadtests.precise_timer import PreciseTimer
from loadtests.schedule import Arrivals, arrival_times
from loadtests.usage import Watched, cpu_us_per_request

CONNECT_ATTEMPTS = 50
DRAIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One request, sent over and over."""

    host: str
    port: int
    request: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What came back. `num_good`: 200 within `slo_ms` (all 200s where there is none).

    `send_lag_p99_ms` is how late the generator itself was, `generator_cores` what it used: above
    0.9 it measured itself. `offered_per_s` is 0 for a closed loop.
    """

    seconds: float
    num_sent: int
    num_good: int
    statuses: dict[int, int]
    histogram: HdrHistogram
    cpu_us: dict[str, float] = field(default_factory=dict)
    rss_bytes: dict[str, int] = field(default_factory=dict)
    offered_per_s: float = 0.0
    send_lag_p99_ms: float = 0.0
    generator_cores: float = 0.0

    @property
    def num_ok(self) -> int:
        return self.statuses.get(200, 0)

    @property
    def ok_per_s(self) -> float:
        return self.num_ok / self.seconds

    @property
    def good_per_s(self) -> float:
        return self.num_good / self.seconds


def http_request(
    path: str, body: bytes, headers: dict[str, str], *, host: str = "127.0.0.1"
) -> bytes:
    """A keep-alive POST as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Tally:
    """What both loops count."""

    def __init__(self, slo_ms: float | None) -> None:
        self.statuses: Counter[int] = Counter()
        self.histogram = new_histogram()
        self.num_good = 0
        self._slo_s = float("inf") if slo_ms is None else slo_ms / 1000

    def count(self, status: int, latency_s: float) -> None:
        self.statuses[status] += 1
        if status == 200:
            self.histogram.record_value(max(1, int(latency_s * 1e6)))
            self.num_good += latency_s <= self._slo_s


class Connection(asyncio.Protocol):
    """One request at a time. `pool.answered(connection, status)` hears of each end."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.since_s = 0.0
        self.is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's offers all of it

    def send(self, request: bytes, since_s: float) -> None:
        self.since_s = since_s
        self.is_busy = True
        assert self.transport is not None
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.is_busy = False
        self._pool.answered(self, self._parser.get_status_code())

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.lost(self)


class Pool:
    """Connections, what waits for one, and what to send next."""

    def __init__(self, target: Target, tally: Tally, *, is_closed_loop: bool) -> None:
        self.target = target
        self.tally = tally
        self.is_closed_loop = is_closed_loop
        self.is_stopping = False
        self.num_sent = 0
        self.idle: list[Connection] = []
        self.waiting: deque[float] = deque()
        self.num_alive = 0
        self._all: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, num_connections: int) -> None:
        for _ in range(num_connections):
            await self._connect()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for attempt in range(CONNECT_ATTEMPTS):
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self.target.host, self.target.port
                )
            except OSError:
                # The listen queue is full or the server restarts: that is load too, try again.
                if attempt == CONNECT_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.05)
                continue
            self.num_alive += 1
            self._all.append(connection)
            self._use(connection)
            return

    def offer(self, since_s: float) -> None:
        """A request whose intended time has come."""
        if self.idle:
            self._send(self.idle.pop(), since_s)
        else:
            self.waiting.append(since_s)

    def start_closed_loop(self) -> None:
        now_s = time.perf_counter()
        while self.idle:
            self._send(self.idle.pop(), now_s)

    def answered(self, connection: Connection, status: int) -> None:
        now_s = time.perf_counter()
        self.tally.count(status, now_s - connection.since_s)
        if self.is_closed_loop and not self.is_stopping:
            self._send(connection, now_s)
        else:
            self._use(connection)

    def lost(self, connection: Connection) -> None:
        self.num_alive -= 1
        if connection in self.idle:
            self.idle.remove(connection)
        if connection.is_busy:
            self.tally.count(0, 0.0)
        if not self.is_stopping:
            task = asyncio.get_running_loop().create_task(self._reconnect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reconnect(self) -> None:
        await self._connect()
        if self.is_closed_loop and not self.is_stopping:
            self.start_closed_loop()

    def num_open(self) -> int:
        """Requests without an answer yet."""
        return len(self.waiting) + sum(connection.is_busy for connection in self._all)

    async def drained(self, patience_s: float) -> None:
        """Until every request has its answer, or patience ends."""
        until_s = time.perf_counter() + patience_s
        while self.num_open() and time.perf_counter() < until_s:  # noqa: ASYNC110  answers come one by one
            await asyncio.sleep(0.01)

    def close(self) -> None:
        self.is_stopping = True
        for task in self._tasks:
            task.cancel()
        for connection in self._all:
            if connection.transport is not None:
                connection.transport.abort()

    def _use(self, connection: Connection) -> None:
        if self.waiting:
            self._send(connection, self.waiting.popleft())
        else:
            self.idle.append(connection)

    def _send(self, connection: Connection, since_s: float) -> None:
        self.num_sent += 1
        connection.send(self.target.request, since_s)


async def closed_loop(
    target: Target, *, connections: int, seconds: float, watched: Watched
) -> Load:
    """N callers, each sends when its last answer is there: capacity, never latency under load."""
    tally = Tally(None)
    pool = Pool(target, tally, is_closed_loop=True)
    await pool.open(connections)
    before, generator_s = watched.read(), time.process_time()
    started_s = time.perf_counter()
    pool.start_closed_loop()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - started_s
    generator_s = time.process_time() - generator_s
    after = watched.read()
    statuses, good = Counter(tally.statuses), tally.num_good
    pool.close()
    return Load(
        seconds=took_s,
        num_sent=pool.num_sent,
        num_good=good,
        statuses=dict(statuses),
        histogram=tally.histogram,
        cpu_us=cpu_us_per_request(before, after, sum(statuses.values())),
        rss_bytes=dict(after.rss_bytes),
        generator_cores=generator_s / took_s,
    )


async def open_loop(
    target: Target,
    *,
    rate_per_s: float,
    seconds: float,
    watched: Watched,
    arrivals: Arrivals = "poisson",
    connections: int = 64,
    slo_ms: float | None = None,
    seed: int = 0,
) -> Load:
    """Requests leave at their times whatever the server does; what it cannot take waits here.

    Answers that come later than `DRAIN_S` after the last arrival count as status 0.
    """
    times = arrival_times(arrivals, rate_per_s=rate_per_s, seconds=seconds, seed=seed)
    tally = Tally(slo_ms)
    lags = new_histogram()
    timer = PreciseTimer()
    pool = Pool(target, tally, is_closed_loop=False)
    await pool.open(connections)
    before, generator_s = watched.read(), time.process_time()
    started_s = time.perf_counter()
    for at_s in times:
        since_s = started_s + at_s
        await timer.until(since_s)
        lags.record_value(max(1, int((time.perf_counter() - since_s) * 1e6)))
        pool.offer(since_s)
    timer.close()
    ended_s = time.perf_counter()
    await pool.drained(DRAIN_S)
    generator_s = time.process_time() - generator_s
    took_s = time.perf_counter() - started_s
    after = watched.read()
    num_unanswered = pool.num_open()
    pool.close()
    return Load(
        seconds=max(seconds, ended_s - started_s),
        num_sent=len(times),
        num_good=tally.num_good,
        statuses=dict(tally.statuses + Counter({0: num_unanswered})),
        histogram=tally.histogram,
        cpu_us=cpu_us_per_request(before, after, sum(tally.statuses.values())),
        rss_bytes=dict(after.rss_bytes),
        offered_per_s=rate_per_s,
        send_lag_p99_ms=lags.get_value_at_percentile(99) / 1000,
        generator_cores=generator_s / took_s,
    )
