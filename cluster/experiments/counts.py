"""What was counted of an experiment's arms: sums that add up across requests, doors and restarts.

An observation belongs to one of `NUM_CLUSTERS` clusters: that of its caller's sticky key, or of its
moment when it has none. Observations of a cluster may depend on each other (one caller's requests,
one batch's, one slow moment's); clusters do not. See METHOD.md, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

NUM_CLUSTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """`counts` and `totals` a cluster (empty: nothing yet), `squares` over all observations."""

    counts: tuple[int, ...] = ()
    totals: tuple[float, ...] = ()
    squares: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def total(self) -> float:
        return sum(self.totals)

    @property
    def mean(self) -> float:
        return self.total / self.count if self.counts and self.count else 0.0

    def __add__(self, other: Measure) -> Measure:
        if not self.counts or not other.counts:
            return self if self.counts else other
        return Measure(
            counts=tuple([a + b for a, b in zip(self.counts, other.counts, strict=True)]),
            totals=tuple([a + b for a, b in zip(self.totals, other.totals, strict=True)]),
            squares=self.squares + other.squares,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How answers to mirrored requests compare with the answers that were given: sums. `num_unlike`
    of `count` had no output that could be compared."""

    count: int = 0
    same_top1: int = 0
    num_ranked: int = 0
    cosine: float = 0.0
    num_cosine: int = 0
    max_abs_difference: float = 0.0
    num_failed: int = 0
    num_skipped: int = 0
    num_unlike: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        summed = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        summed["max_abs_difference"] = max(self.max_abs_difference, other.max_abs_difference)
        return Agreement(**summed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCounts:
    """One arm's sums.

    `drawn`: assigned by chance, without a sticky key; `units`: distinct sticky keys; `answered`:
    drawn ones that came to an end. `log_latency` (of seconds) and `errors` (1 or 0) are of requests
    that were assigned by chance or key; `slow` those above the SLO; `quality` of feedback.
    `latency_buckets`: bucket of `quantiles` -> requests. `matched`: sent here by a header rule,
    which says nothing about the arm. `rows` of all that it answered.
    """

    drawn: int = 0
    units: int = 0
    answered: int = 0
    matched: int = 0
    rows: int = 0
    slow: int = 0
    log_latency: Measure = Measure()
    errors: Measure = Measure()
    quality: Measure = Measure()
    latency_buckets: Mapping[int, int] = field(default_factory=dict)
    agreement: Agreement = Agreement()

    @property
    def requests(self) -> int:
        return self.errors.count

    def __add__(self, other: ArmCounts) -> ArmCounts:
        buckets = dict(self.latency_buckets)
        for bucket, count in other.latency_buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
        return ArmCounts(
            drawn=self.drawn + other.drawn,
            units=self.units + other.units,
            answered=self.answered + other.answered,
            matched=self.matched + other.matched,
            rows=self.rows + other.rows,
            slow=self.slow + other.slow,
            log_latency=self.log_latency + other.log_latency,
            errors=self.errors + other.errors,
            quality=self.quality + other.quality,
            latency_buckets=buckets,
            agreement=self.agreement + other.agreement,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """A time with the same weights. Arms are compared inside a stratum only: across a change of
    weights a busy hour would count more for one arm than for the other (Simpson's paradox)."""

    weights: Mapping[str, float]
    arms: Mapping[str, ArmCounts] = field(default_factory=dict)

    def of(self, arm: str) -> ArmCounts:
        return self.arms.get(arm) or ArmCounts()

    def plus(self, arms: Mapping[str, ArmCounts]) -> Stratum:
        merged = {**self.arms, **{name: self.of(name) + counts for name, counts in arms.items()}}
        return Stratum(weights=self.weights, arms=merged)


def totals(strata: tuple[Stratum, ...], arm: str) -> ArmCounts:
    """An arm's sums over all strata: for showing, not for comparing."""
    found = ArmCounts()
    for stratum in strata:
        found = found + stratum.of(arm)
    return found
