"""Values with their 95 % intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

Z = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """`value` with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def wilson(num_right: int, num: int) -> Interval:
    """A share and its interval. **Source:** Wilson 1927, as in Agresti and Coull 1998.

    **Raises:** ValueError for no items.
    """
    if num <= 0:
        raise ValueError("a share needs at least one item")
    share = num_right / num
    spread = Z * math.sqrt(share * (1 - share) / num + Z**2 / (4 * num**2))
    scale = 1 + Z**2 / num
    middle = share + Z**2 / (2 * num)
    # Without rounding errors at the ends: all right has no upper end below 1.
    low = 0.0 if num_right == 0 else (middle - spread) / scale
    high = 1.0 if num_right == num else (middle + spread) / scale
    return Interval(value=share, low=low, high=high)


def paired_difference(gained: int, lost: int, num: int) -> Interval:
    """(gained - lost) / num of two variants judged on the same items.

    Half an item is added to each cell for the interval, so that no disagreement seen is not taken
    for none possible. **Source:** Agresti and Min 2005 (adjusted Wald for matched pairs).
    """
    if num <= 0:
        raise ValueError("a difference needs at least one item")
    size = num + 2
    difference = (gained - lost) / size
    variance = (gained + lost + 1) - (gained - lost) ** 2 / size
    spread = Z * math.sqrt(variance) / size
    return Interval(
        value=(gained - lost) / num,
        low=max(-1.0, difference - spread),
        high=min(1.0, difference + spread),
    )


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float] = statistics.fmean,
    *,
    num_draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """The statistic with its percentile interval. **Source:** Efron and Tibshirani 1993, ch. 13.

    **Raises:** ValueError for no values.
    """
    if not values:
        raise ValueError("an interval needs at least one value")
    draw = Random(seed)
    drawn = sorted(statistic(draw.choices(values, k=len(values))) for _ in range(num_draws))
    return Interval(
        value=statistic(values),
        low=drawn[int(0.025 * num_draws)],
        high=drawn[min(num_draws - 1, int(0.975 * num_draws))],
    )
