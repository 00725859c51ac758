"""When requests are meant to leave: decided before the first one does.

In an open loop callers do not wait for each other, so a slow server meets the same arrivals as a
fast one and its latency is counted from the intended time (no coordinated omission).
"""

from __future__ import annotations

from random import Random
from typing import Literal

Arrivals = Literal["poisson", "constant"]


def arrival_times(kind: Arrivals, *, rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Intended send times in [0, seconds), ascending. **Units:** seconds from the start.

    `poisson`: independent exponential gaps of mean 1 / rate; the same seed gives the same times.
    """
    if rate_per_s <= 0 or seconds <= 0:
        raise ValueError(f"rate {rate_per_s} and length {seconds} must both be above 0")
    if kind == "constant":
        return [number / rate_per_s for number in range(int(rate_per_s * seconds))]
    draw = Random(seed)
    times: list[float] = []
    now_s = draw.expovariate(rate_per_s)
    while now_s < seconds:
        times.append(now_s)
        now_s += draw.expovariate(rate_per_s)
    return times
