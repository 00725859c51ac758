"""What batches are seen to cost: the curve l(b), learned from every batch that ran."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import accumulate

GAIN = 0.125
DEVIATION_GAIN = 0.25
"""Of the moving averages; the gains and the 'mean plus some deviations' are those of TCP's
retransmission timer (RFC 6298)."""

NUM_DEVIATIONS = 2.0
MAX_CURVES = 64


@dataclass(slots=True, kw_only=True)
class CostPoint:
    """Batches of `rows` rows: moving mean and mean deviation of their time, and how many."""

    rows: int
    mean_s: float
    deviation_s: float
    num_seen: int


class BatchCost:
    """One model's (or one bucket's) curve. Costs never fall with rows: noise is levelled out.

    Unmeasured sizes: between two measured ones, the line between them; below the smallest, in
    proportion (too cheap rather than too dear: nothing is refused for a guess); above the
    largest, the last slope goes on. Nothing measured costs nothing.
    """

    def __init__(self) -> None:
        self._points: dict[int, CostPoint] = {}
        self._rows: list[int] = []
        self._means: list[float] = []
        self._safes: list[float] = []
        self._is_level = True

    def observe(self, rows: int, seconds: float) -> None:
        size = grain(rows)
        point = self._points.get(size)
        if point is None:
            self._points[size] = CostPoint(rows=size, mean_s=seconds, deviation_s=0.0, num_seen=1)
            insort(self._rows, size)
        else:
            error = seconds - point.mean_s
            gain = max(GAIN, 1.0 / (point.num_seen + 1))
            point.mean_s += gain * error
            point.deviation_s += DEVIATION_GAIN * (abs(error) - point.deviation_s)
            point.num_seen += 1
        self._is_level = False

    def ease(self, rows: int, seconds: float) -> None:
        """A batch that was refused for its cost was run all the same, and took only so long: the
        whole curve comes down by as much. The moving averages need dozens of batches for that, and
        get none while all is refused. What is too cheap now is put right by the batches that run.
        """
        known_s = self.mean_s(rows)
        if seconds >= known_s:
            self.observe(rows, seconds)
            return
        for point in self._points.values():
            point.mean_s *= seconds / known_s
            point.deviation_s = min(point.deviation_s, point.mean_s / 2)
        self._is_level = False

    def _level_out(self) -> None:
        # When somebody asks: each batch is observed, and few are asked about.
        self._is_level = True
        points = [self._points[rows] for rows in self._rows]
        self._means = list(accumulate((p.mean_s for p in points), max))
        safes = (p.mean_s + NUM_DEVIATIONS * p.deviation_s for p in points)
        self._safes = list(accumulate(safes, max))

    def points(self) -> tuple[CostPoint, ...]:
        return tuple(self._points[rows] for rows in self._rows)

    def told(self, most: int) -> dict[int, float]:
        """Rows -> mean seconds, for the autoscaler: the least and the largest measured size up to
        `most`, and powers of two between them."""
        found = {rows: self._points[rows].mean_s for rows in self._rows if rows <= most}
        ends = {min(found, default=0), max(found, default=0)}
        return {rows: s for rows, s in found.items() if rows in ends or rows.bit_count() == 1}

    def mean_s(self, rows: int) -> float:
        """What such a batch takes on average."""
        if not self._is_level:
            self._level_out()
        return self._at(self._means, rows)

    def safe_s(self, rows: int) -> float:
        """What such a batch hardly ever exceeds: the mean and two mean deviations."""
        if not self._is_level:
            self._level_out()
        return self._at(self._safes, rows)

    def fit(self, seconds: float, limit: int) -> int:
        """The largest batch of at most `limit` rows that is done in `seconds`; 0 when none is."""
        if self.safe_s(limit) <= seconds:
            return limit
        return bisect_right(range(1, limit + 1), seconds, key=self.safe_s)

    def _at(self, costs: list[float], rows: int) -> float:
        if not costs:
            return 0.0
        known = self._rows
        at = bisect_left(known, rows)
        if at < len(known) and known[at] == rows:
            return costs[at]
        if at == 0:
            return costs[0] * rows / known[0]
        if at == len(known):
            if at == 1:
                return costs[0]
            at -= 1
        low, high = known[at - 1], known[at]
        slope = (costs[at] - costs[at - 1]) / (high - low)
        return costs[at - 1] + slope * (rows - low)


class CostBook:
    """A curve for each lane of the queue; lanes beyond `MAX_CURVES` share one. The curve of lane
    None is that of all batches together."""

    def __init__(self) -> None:
        self._curves: dict[Hashable, BatchCost] = {None: BatchCost()}

    def dearest_s(self, rows: int) -> float:
        """What a batch of `rows` hardly ever exceeds in any lane."""
        return max([curve.safe_s(rows) for curve in self._curves.values()])

    def observe(self, lane: Hashable, rows: int, seconds: float) -> None:
        """A batch of this lane took so long."""
        self._curves[None].observe(rows, seconds)
        if (curve := self.curve(lane)) is not self._curves[None]:
            curve.observe(rows, seconds)

    def ease(self, lane: Hashable, rows: int, seconds: float) -> None:
        """See `BatchCost.ease`."""
        self._curves[None].ease(rows, seconds)
        if (curve := self.curve(lane)) is not self._curves[None]:
            curve.ease(rows, seconds)

    def curve(self, lane: Hashable) -> BatchCost:
        found = self._curves.get(lane)
        if found is None:
            key = lane if len(self._curves) < MAX_CURVES else None
            found = self._curves.setdefault(key, BatchCost())
        return found


def grain(rows: int) -> int:
    """Sizes above 32 are kept to an eighth: a curve has a hundred points at most."""
    if rows <= 32:
        return rows
    step = 1 << (rows.bit_length() - 4)
    return -(-rows // step) * step
