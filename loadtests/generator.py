"""HTTP/1.1 load from one process: an open loop for latency, a closed one for capacity only.

The generator shares the machine with what it measures, so it is made to be cheap: plain sockets
(`loadtests.connections`), no event loop and no histogram while the load runs.

Latency counts from the *intended* send time in the open loop, so waiting for a free connection or
for a late generator counts as well. Every answer other than 200 and every lost connection is
counted by status (0: no answer), and its latency is kept out of the histogram of successes.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from math import inf

from hdrh.histogram import HdrHistogram

from loadtests.connections import Pool, Tally, Target
from loadtests.latencies import histogram_of
from loadtests.schedule import Arrivals, arrival_times
from loadtests.usage import Watched, cpu_us_per_request

DRAIN_S = 5.0
MAX_CONNECTIONS = 4096
LATE_S = 0.001


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


def closed_loop(target: Target, *, connections: int, seconds: float, watched: Watched) -> Load:
    """N callers, each sends when its last answer is there: capacity, never latency under load."""
    tally = Tally()
    with Pool(target, tally, is_closed_loop=True) as pool:
        pool.open(connections)
        before, generator_s = watched.read(), time.process_time()
        started_s = time.perf_counter()
        pool.start_closed_loop()
        while (left_s := started_s + seconds - time.perf_counter()) > 0:
            pool.turn(left_s)
        took_s = time.perf_counter() - started_s
        generator_s = time.process_time() - generator_s
        after = watched.read()
        num_sent = pool.num_sent
    return Load(
        seconds=took_s,
        num_sent=num_sent,
        num_good=tally.num_good(None),
        statuses=dict(tally.statuses),
        histogram=histogram_of(tally.latencies_s),
        cpu_us=cpu_us_per_request(before, after, sum(tally.statuses.values())),
        rss_bytes=dict(after.rss_bytes),
        generator_cores=generator_s / took_s,
    )


def open_loop(
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
    """Requests leave at their times whatever the server does; what it cannot take waits here, for
    as long as an answer could still be in time (`slo_ms`): then its caller gives up (status 0).

    Answers that come later than `DRAIN_S` after the last arrival count as status 0.
    """
    times_s = arrival_times(arrivals, rate_per_s=rate_per_s, seconds=seconds, seed=seed)
    tally = Tally()
    lags_s: list[float] = []
    patience_s = inf if slo_ms is None else slo_ms / 1000
    with Pool(target, tally, is_closed_loop=False, patience_s=patience_s) as pool:
        pool.open(connections)
        before, generator_s = watched.read(), time.process_time()
        started_s = time.perf_counter()
        for at_s in times_s:
            since_s = started_s + at_s
            while (now_s := time.perf_counter()) < since_s:
                pool.turn(since_s - now_s)
            lags_s.append(now_s - since_s)
            pool.offer(since_s)
            if now_s - since_s > LATE_S:
                # Behind its times, as after a burst: answers are read all the same.
                pool.turn(0.0)
        ended_s = time.perf_counter()
        while pool.num_open() and (left_s := ended_s + DRAIN_S - time.perf_counter()) > 0:
            pool.turn(min(left_s, 0.01))
        took_s = time.perf_counter() - started_s
        generator_s = time.process_time() - generator_s
        after = watched.read()
        num_unanswered = pool.num_open()
    return Load(
        seconds=max(seconds, ended_s - started_s),
        num_sent=len(times_s),
        num_good=tally.num_good(slo_ms),
        statuses=dict(tally.statuses + Counter({0: num_unanswered})),
        histogram=histogram_of(tally.latencies_s),
        cpu_us=cpu_us_per_request(before, after, sum(tally.statuses.values())),
        rss_bytes=dict(after.rss_bytes),
        offered_per_s=rate_per_s,
        send_lag_p99_ms=histogram_of(lags_s).get_value_at_percentile(99) / 1000,
        generator_cores=generator_s / took_s,
    )


def callers(rate_per_s: float, patience_ms: float, *, at_least: int) -> int:
    """Connections that so many callers hold who each wait `patience_ms` for an answer.

    With fewer the requests would queue in the generator, and all be late before a server could
    choose between them. **Source:** Little's law, half as many again for bursts.
    """
    waiting = int(1.5 * rate_per_s * patience_ms / 1000)
    return max(at_least, min(MAX_CONNECTIONS, waiting))
