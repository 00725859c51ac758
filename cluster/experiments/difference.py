"""By how much an arm's mean differs from the control's, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.experiments.counts import NUM_CLUSTERS, ArmCounts, Measure, Stratum

MIN_CLUSTERS = 16
"""Fewer clusters say too little about how much they scatter."""
MIN_PER_STRATUM = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`value` is arm minus control; `variance` that of `value`. `design_effect`: how many times
    larger it is than if all observations were independent."""

    value: float
    variance: float
    count: int
    control_count: int
    design_effect: float = 1.0


def difference(
    strata: tuple[Stratum, ...], control: str, arm: str, measure: Callable[[ArmCounts], Measure]
) -> Difference | None:
    """None as long as there is too little to say how sure it is.

    Strata are weighted by n_a n_b / (n_a + n_b), which does not depend on what was observed. The
    variance is the larger of that of independent observations and that between clusters (ratio
    estimator, linearised; METHOD.md, section 2).
    """
    value = naive = weight_sum = 0.0
    count = control_count = 0
    residuals: NDArray[np.float64] = np.zeros(NUM_CLUSTERS)
    is_seen: NDArray[np.bool_] = np.zeros(NUM_CLUSTERS, dtype=bool)
    for stratum in strata:
        a, b = measure(stratum.of(control)), measure(stratum.of(arm))
        n_a, n_b = a.count, b.count
        if min(n_a, n_b) < MIN_PER_STRATUM:
            continue
        weight = n_a * n_b / (n_a + n_b)
        weight_sum += weight
        value += weight * (b.mean - a.mean)
        naive += weight**2 * (_variance(a) / n_a + _variance(b) / n_b)
        residuals += weight * (_residuals(b) - _residuals(a))
        is_seen |= (np.array(a.counts) + np.array(b.counts)) > 0
        count += n_b
        control_count += n_a
    clusters = int(is_seen.sum())
    if clusters < MIN_CLUSTERS:
        return None
    naive /= weight_sum**2
    # The second factor is the variance of Student's t: few clusters scatter more than many.
    spread = clusters / (clusters - 1) * (clusters - 1) / (clusters - 3)
    between = spread * float((residuals**2).sum()) / weight_sum**2
    variance = max(naive, between)
    if variance <= 0:
        # Neither arm ever varied. Equal ones say nothing; of unequal ones each cluster counts once,
        # as if one more in each arm had been as the other's.
        if value == 0:
            return None
        variance = 2 * (value / weight_sum / clusters) ** 2
    return Difference(
        value=value / weight_sum,
        variance=variance,
        count=count,
        control_count=control_count,
        design_effect=max(1.0, variance / naive) if naive > 0 else 1.0,
    )


def _variance(measure: Measure) -> float:
    n = measure.count
    return max(0.0, measure.squares / n - measure.mean**2) * n / (n - 1)


def _residuals(measure: Measure) -> NDArray[np.float64]:
    """A cluster's pull on the mean."""
    counts = np.array(measure.counts, dtype=np.float64)
    pulls: NDArray[np.float64] = (np.array(measure.totals) - measure.mean * counts) / measure.count
    return pulls
