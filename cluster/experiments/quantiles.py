"""Latency quantiles from counts in logarithmic buckets: within 2.5 %, mergeable, small."""

from __future__ import annotations

import math
from collections.abc import Mapping

PER_UNIT = 20
"""Buckets a factor of e, each 5 % wide."""


def bucket_of(log_seconds: float) -> int:
    return math.floor(log_seconds * PER_UNIT)


def quantile_ms(buckets: Mapping[int, int], share: float) -> float | None:
    """The latency that `share` of the requests do not exceed; None without requests."""
    wanted = share * sum(buckets.values())
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted:
            return 1e3 * math.exp((bucket + 0.5) / PER_UNIT)
    return None
