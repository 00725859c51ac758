"""Latencies in an HDR histogram, and which quantiles its number of samples can carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hdrh.histogram import HdrHistogram

LOWEST_US, HIGHEST_US, NUM_DIGITS = 1, 120_000_000, 3
QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """A quantile with its 95 % interval. **Units:** milliseconds."""

    q: float
    ms: float
    low_ms: float
    high_ms: float


def new_histogram() -> HdrHistogram:
    """1 us to 2 minutes, three digits. **Source:** Gil Tene's HdrHistogram."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, NUM_DIGITS)


def histogram_of(latencies_s: Sequence[float]) -> HdrHistogram:
    """Of latencies in seconds; below `LOWEST_US` or above `HIGHEST_US` they count as that."""
    histogram = new_histogram()
    micros = (np.asarray(latencies_s, dtype=np.float64) * 1e6).astype(np.int64)
    values, counts = np.unique(micros.clip(LOWEST_US, HIGHEST_US), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)
    return histogram


def rank_interval(num_samples: int, q: float, *, z: float = 1.96) -> tuple[int, int] | None:
    """Ranks (from 1) of the order statistics that enclose the q-quantile with 95 % confidence.

    None when the upper one lies beyond the largest sample: then there are too few samples for
    this quantile and it must not be printed. **Source:** normal approximation of the binomial
    number of samples below the quantile (Conover, Practical Nonparametric Statistics, 3.2).
    """
    middle, half = num_samples * q, z * math.sqrt(num_samples * q * (1 - q))
    low, high = math.floor(middle - half), math.ceil(middle + half) + 1
    if num_samples == 0 or high > num_samples:
        return None
    return max(1, low), high


def quantiles(histogram: HdrHistogram) -> list[Quantile]:
    """Those of `QUANTILES` that the samples can carry."""
    found = []
    num_samples = histogram.get_total_count()
    for q in QUANTILES:
        ranks = rank_interval(num_samples, q)
        if ranks is not None:
            low, high = (_at(histogram, rank / num_samples) for rank in ranks)
            found.append(Quantile(q=q, ms=_at(histogram, q), low_ms=low, high_ms=high))
    return found


def _at(histogram: HdrHistogram, q: float) -> float:
    return float(histogram.get_value_at_percentile(q * 100)) / 1000


def encoded(histogram: HdrHistogram) -> str:
    """The whole histogram as text (HdrHistogram V2, compressed, base64), for the run's JSON."""
    return bytes(histogram.encode()).decode("ascii")
