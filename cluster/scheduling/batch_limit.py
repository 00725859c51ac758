"""How large a batch may be now: large enough to pay, small enough for the latency target."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from cluster.scheduling.batch_cost import BatchCost, CostBook, grain

DECREASE = 0.9
GAIN_NEEDED = 0.05
"""A larger batch must save this share of a row's time, or it only adds latency."""

PROBE_EVERY = 64
"""Each so many batches one may be larger than what pays: engines and their inputs change. Before
that, one is smaller until such sizes were seen: behind a backlog all batches are full, and nothing
would ever show that a quarter of them pays as well."""

SEEN_ENOUGH = 3
MAX_LANES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimit:
    """`rows` of a batch at most, and why."""

    rows: int
    reason: str

    @property
    def is_batching(self) -> bool:
        return self.rows > 1


class AdaptiveLimit:
    """Additive increase, multiplicative decrease under a latency target, below what pays.

    A request that just missed a batch waits for it and then runs in the next: the target holds
    when two batches fit in it. Source: Clipper (NSDI'17) section 4.3 for the rule, Nexus (SOSP'19)
    for the two batches.
    """

    def __init__(self, max_batch_size: int, target_s: float | None) -> None:
        self._max_batch_size = max_batch_size
        self._target_s = target_s
        # Without a target nothing but the curve speaks against the largest batch.
        self._ceiling = 1.0 if target_s is not None else float(max_batch_size)
        self._num_batches = 0
        self._pays = BatchLimit(rows=max_batch_size, reason="max_batch_size")
        self.now = self._choose()

    def observe(self, rows: int, seconds: float, curve: BatchCost) -> None:
        """A batch of `rows` took `seconds`; `curve` has seen it already."""
        self._num_batches += 1
        if self._target_s is not None:
            if 2 * seconds > self._target_s and rows <= self._ceiling:
                self._ceiling = max(1.0, min(self._ceiling, rows) * DECREASE)
            elif rows >= int(self._ceiling):
                self._ceiling = min(float(self._max_batch_size), self._ceiling + 1)
        self._pays = what_pays(curve, self._max_batch_size)
        self.now = self._choose()
        if self._is_probe_due():
            rows = _unseen_below(min(int(self._ceiling), self._pays.rows), curve)
            if rows:
                self.now = BatchLimit(rows=rows, reason=f"to see whether {rows} rows pay as well")

    def _is_probe_due(self) -> bool:
        return self._num_batches % PROBE_EVERY == PROBE_EVERY - 1

    def _choose(self) -> BatchLimit:
        ceiling = int(self._ceiling)
        if self._pays.rows < ceiling and not self._is_probe_due():
            return self._pays
        if ceiling < self._max_batch_size:
            target_ms = (self._target_s or 0.0) * 1e3
            reason = f"two batches of {ceiling} rows fit in the target of {target_ms:g} ms"
            return BatchLimit(rows=ceiling, reason=reason)
        return BatchLimit(rows=self._max_batch_size, reason="max_batch_size")


class AdaptiveLimits:
    """An `AdaptiveLimit` a lane; lanes beyond `MAX_LANES` share one."""

    def __init__(self, max_batch_size: int, target_s: float | None, costs: CostBook) -> None:
        self._max_batch_size = max_batch_size
        self._target_s = target_s
        self._costs = costs
        self._limits: dict[Hashable, AdaptiveLimit] = {}

    def rows(self, lane: Hashable) -> int:
        return self._of(lane).now.rows

    def observe(self, lane: Hashable, rows: int, seconds: float) -> None:
        self._of(lane).observe(rows, seconds, self._costs.curve(lane))

    def now(self) -> dict[Hashable, BatchLimit]:
        """Lane -> its limit and the reason, to be printed."""
        return {lane: limit.now for lane, limit in self._limits.items()}

    def _of(self, lane: Hashable) -> AdaptiveLimit:
        found = self._limits.get(lane)
        if found is None:
            key = lane if len(self._limits) < MAX_LANES else None
            fresh = AdaptiveLimit(self._max_batch_size, self._target_s)
            found = self._limits.setdefault(key, fresh)
        return found


def what_pays(curve: BatchCost, max_batch_size: int) -> BatchLimit:
    """The smallest batch whose rows are nearly as cheap as those of any measured batch.

    Judged only once batches of four times that size (or the largest) were measured: that two
    rows do not pay says nothing of sixteen.
    """
    points = [point for point in curve.points() if point.num_seen >= SEEN_ENOUGH]
    if points:
        best = min(points, key=lambda point: point.mean_s / point.rows)
        best_s = best.mean_s / best.rows
        for point in points:
            row_s = point.mean_s / point.rows
            if row_s * (1 - GAIN_NEEDED) <= best_s:
                if points[-1].rows < min(max_batch_size, 4 * point.rows):
                    break
                if point.rows < max_batch_size:
                    return BatchLimit(rows=point.rows, reason=_why(point.rows, row_s, best_s))
                break
    return BatchLimit(rows=max_batch_size, reason="max_batch_size")


def _unseen_below(rows: int, curve: BatchCost) -> int:
    """The largest of its halves that was not seen often enough; 0 when all were."""
    seen = {point.rows for point in curve.points() if point.num_seen >= SEEN_ENOUGH}
    while rows > 1:
        rows //= 2
        if grain(rows) not in seen:
            return rows
    return 0


def _why(rows: int, row_s: float, best_s: float) -> str:
    what = "a row alone" if rows == 1 else f"a row in batches of {rows}"
    verdict = "batching only adds latency" if rows == 1 else "larger ones only add latency"
    return f"{what} takes {row_s * 1e3:.3g} ms, at best {best_s * 1e3:.3g} ms: {verdict}"
