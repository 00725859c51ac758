"""One arm's requests at one door, added up in memory: a request costs a few additions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cluster.experiments.asked import pack
from cluster.experiments.counts import NUM_CLUSTERS, Agreement, ArmCounts, Measure
from cluster.experiments.quantiles import bucket_of

MAX_ASKED = 1_000_000
"""Remembered of an arm while there is no controller to be told."""
PACK_AT = 2048
"""Half a millisecond in which nothing else happens."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Cell:
    """Sums of one cluster."""

    num_served: int = 0
    log_latency: float = 0.0
    num_ended: int = 0
    errors: int = 0
    num_rated: int = 0
    quality: float = 0.0


@dataclass(slots=True, kw_only=True, eq=False)
class ArmTally:
    """Since the last report."""

    drawn: int = 0
    answered: int = 0
    matched: int = 0
    rows: int = 0
    slow: int = 0
    latency_squares: float = 0.0
    quality_squares: float = 0.0
    agreement: Agreement = field(default_factory=Agreement)
    callers: list[int] = field(default_factory=list)
    cells: dict[int, _Cell] = field(default_factory=dict)
    buckets: dict[int, int] = field(default_factory=dict)
    asked: bytes = b""
    _ids: list[str] = field(default_factory=list)
    _clusters: bytearray = field(default_factory=bytearray)

    def remember(self, tracking_id: str, cluster: int) -> None:
        """The request may be rated later."""
        self._ids.append(tracking_id)
        self._clusters.append(cluster)
        if len(self._ids) == PACK_AT:
            self.pack()

    def pack(self) -> None:
        """Bring what is remembered into the few bytes in which it is told: 0.25 µs a request, all
        together."""
        if self._ids:
            packed = pack(self._ids, self._clusters)
            self.asked = (self.asked + packed)[-8 * MAX_ASKED :]
            self._ids, self._clusters = [], bytearray()

    def served(self, cluster: int, seconds: float) -> None:
        log_s = math.log(max(seconds, 1e-9))
        self.latency_squares += log_s * log_s
        bucket = bucket_of(log_s)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        cell = self._cell(cluster)
        cell.num_ended += 1
        cell.num_served += 1
        cell.log_latency += log_s

    def failed(self, cluster: int) -> None:
        cell = self._cell(cluster)
        cell.num_ended += 1
        cell.errors += 1

    def rated(self, cluster: int, value: float) -> None:
        self.quality_squares += value * value
        cell = self._cell(cluster)
        cell.num_rated += 1
        cell.quality += value

    def counts(self) -> ArmCounts:
        cells = self.cells.items()
        return ArmCounts(
            drawn=self.drawn,
            units=len(self.callers),
            answered=self.answered,
            matched=self.matched,
            rows=self.rows,
            slow=self.slow,
            log_latency=_measure(
                [(i, c.num_served, c.log_latency) for i, c in cells], self.latency_squares
            ),
            # An error is 1 and its square as well.
            errors=_measure(
                [(i, c.num_ended, c.errors) for i, c in cells],
                float(sum(c.errors for c in self.cells.values())),
            ),
            quality=_measure([(i, c.num_rated, c.quality) for i, c in cells], self.quality_squares),
            latency_buckets=dict(self.buckets),
            agreement=self.agreement,
        )

    def _cell(self, cluster: int) -> _Cell:
        found = self.cells.get(cluster)
        if found is None:
            found = self.cells[cluster] = _Cell()
        return found


def _measure(cells: list[tuple[int, int, float]], squares: float) -> Measure:
    if not any(count for _, count, _ in cells):
        return Measure()
    counts, totals = [0] * NUM_CLUSTERS, [0.0] * NUM_CLUSTERS
    for cluster, count, total in cells:
        counts[cluster] = count
        totals[cluster] = total
    return Measure(counts=tuple(counts), totals=tuple(totals), squares=squares)
