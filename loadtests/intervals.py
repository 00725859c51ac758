"""Ratios with intervals: medians of per-pair log ratios and their bootstrap."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

MAX_AA_DEVIATION = 0.03
"""A run whose A/A control is further from 1 than this says nothing about small differences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """`value` of new / old with its 95 % interval, which is the value itself for a single pair."""

    value: float
    low: float
    high: float
    num_pairs: int


def ratio_of(new: Sequence[float], old: Sequence[float], *, seed: int = 0) -> Ratio:
    """Median of the pairs' log ratios, percentile bootstrap over pairs.

    **Raises:** ValueError when lengths differ, there is no pair, or a value is not above 0.
    """
    if len(new) != len(old) or not new:
        raise ValueError(f"{len(new)} new values for {len(old)} old ones")
    if min(*new, *old) <= 0:
        raise ValueError("a ratio needs values above 0: one side answered nothing in a block")
    logs = [math.log(a / b) for a, b in zip(new, old, strict=True)]
    low, high = bootstrap_median(logs, seed=seed)
    return Ratio(
        value=math.exp(statistics.median(logs)),
        low=math.exp(low),
        high=math.exp(high),
        num_pairs=len(logs),
    )


def bootstrap_median(
    values: Sequence[float], *, num_draws: int = 2000, coverage: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the median. **Source:** Efron and Tibshirani 1993, chapter 13."""
    draw = Random(seed)
    medians = sorted(
        statistics.median(draw.choices(values, k=len(values))) for _ in range(num_draws)
    )
    tail = (1 - coverage) / 2
    low = medians[int(tail * num_draws)]
    high = medians[min(num_draws - 1, int((1 - tail) * num_draws))]
    return low, high
