"""What the doors' requests came to, added up in memory and written to the metrics twice a second.

A metric in prometheus_client's multiprocess mode asks for the process id on every increment; at
10,000 requests/s that alone was 7 % of a door's time. Here a request costs two additions.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.observability.histogram import observe_many
from cluster.observability.metrics import LATENCY_BUCKETS_S, Metrics

FLUSH_S = 0.5

SeeSums = Callable[[str, str, str, Sequence[int]], None]
"""Model, variant, outcome, and how many requests were in each of `LATENCY_BUCKETS_S`."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Requests that share their labels."""

    model: str
    version: str
    variant: str
    outcome: str


@dataclass(slots=True)
class _Sum:
    count: int = 0
    seconds: float = 0.0
    # One more than the bounds: what is above the last of them.
    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))


class RequestTally:
    """Lives on the door's loop. `in_flight` is asked when the tally is written."""

    def __init__(self, metrics: Metrics, in_flight: Callable[[], int]) -> None:
        self._metrics = metrics
        self._in_flight = in_flight
        self._sums: dict[tuple[str, str, str, str], _Sum] = {}
        self._watchers: list[SeeSums] = []
        self._others: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def add(self, model: str, version: str, variant: str, outcome: str, seconds: float) -> None:
        key = (model, version, variant, outcome)
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = _Sum()
        found.count += 1
        found.seconds += seconds
        found.buckets[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self.wake()

    def wake(self) -> None:
        """Something is under way: what is counted now is written soon, also if nothing ends."""
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self.flush)

    def flush_with(self, other: Callable[[], None]) -> None:
        """Call `other` whenever this is written."""
        self._others.append(other)

    def watch(self, see: SeeSums) -> None:
        """Show `see` the sums of each kind of request whenever they are written."""
        self._watchers.append(see)

    def flush(self) -> None:
        """Write what came since the last time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sums, self._sums = self._sums, {}
        for key, total in sums.items():
            self._write(_Kind(*key), total)
            for see in self._watchers:
                see(key[0], key[2], key[3], total.buckets)
        num_in_flight = self._in_flight()
        self._metrics.in_flight.set(num_in_flight)
        if num_in_flight:
            self.wake()
        for other in self._others:
            other()

    def _write(self, kind: _Kind, total: _Sum) -> None:
        metrics = self._metrics
        metrics.requests.labels(kind.model, kind.variant, kind.outcome).inc(total.count)
        histogram = metrics.request_seconds.labels(kind.model, kind.variant)
        observe_many(histogram, total.buckets, total.seconds)
        version = (kind.model, kind.version)
        if kind.outcome == "success":
            metrics.inference_success.labels(*version).inc(total.count)
            metrics.request_duration_us.labels(*version).inc(total.seconds * 1e6)
            metrics.statistics.last_inference.labels(*version).set(time.time())
        else:
            reason = failure_reason(kind.outcome)
            metrics.inference_failure.labels(*version, reason).inc(total.count)
            metrics.statistics.failure_seconds.labels(*version).inc(total.seconds)


def failure_reason(outcome: str) -> str:
    """Triton's four reasons (`nv_inference_request_failure`)."""
    match outcome:
        case "cancelled":
            return "CANCELED"
        case "overloaded" | "rate_limited" | "deadline_exceeded" | "no_ready_replica":
            return "REJECTED"
        case "engine_failed" | "shard_lost":
            return "BACKEND"
        case _:
            return "OTHER"
