"""Arrival times to compare autoscaling policies on: a step, days, bursts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

BURST_CV = 4.0


def step(seed: int, *, low: float, high: float, at_s: float, until_s: float) -> list[float]:
    """Poisson arrivals at `low` a second, from `at_s` for a third of the rest at `high`."""
    third_s = (until_s - at_s) / 3
    return list(
        _poisson(seed, lambda t: high if at_s <= t < at_s + third_s else low, high, until_s)
    )


def daily(seed: int, *, low: float, high: float, day_s: float, days: int) -> list[float]:
    """Poisson arrivals whose rate goes from `low` to `high` and back, once a day."""

    def rate(t: float) -> float:
        return low + (high - low) * (1 - math.cos(2 * math.pi * t / day_s)) / 2

    return list(_poisson(seed, rate, high, days * day_s))


def bursty(seed: int, *, rate: float, until_s: float, cv: float = BURST_CV) -> list[float]:
    """Gamma times between arrivals with this coefficient of variation. Source: AlpaServe, OSDI'23,
    section 6 (gamma process, CV 4)."""
    draw = random.Random(seed)
    shape = 1 / cv**2
    times: list[float] = []
    t = 0.0
    while True:
        t += draw.gammavariate(shape, 1 / (rate * shape))
        if t >= until_s:
            return times
        times.append(t)


def _poisson(
    seed: int, rate: Callable[[float], float], highest: float, until_s: float
) -> Iterator[float]:
    """By thinning (Lewis and Shedler 1979)."""
    draw = random.Random(seed)
    t = 0.0
    while True:
        t += draw.expovariate(highest)
        if t >= until_s:
            return
        if draw.random() * highest < rate(t):
            yield t
