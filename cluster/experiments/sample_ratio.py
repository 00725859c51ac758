"""Does the traffic split as the weights say? Where it does not, something loses requests, and no
comparison of the arms can be trusted.

Source: Lindon and Malek 2020, "Anytime-valid inference for multinomial count data", arXiv
2011.03567: a Dirichlet mixture, which may be looked at all the time. METHOD.md, section 6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.experiments.counts import Stratum

CONCENTRATION = 100.0
"""Of the prior around the weights: deviations of about a tenth are expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatio:
    ok: bool
    p_value: float


def log_evidence_of_mismatch(
    counts: Mapping[str, int], weights: Mapping[str, float], concentration: float = CONCENTRATION
) -> float:
    """ln of the e-value against "each unit goes to an arm with its weight's probability"."""
    live = {arm: weight for arm, weight in weights.items() if weight > 0}
    if len(live) < 2:
        return 0.0
    scale = sum(live.values())
    n = sum(counts.get(arm, 0) for arm in live)
    found = math.lgamma(concentration) - math.lgamma(concentration + n)
    for arm, weight in live.items():
        share, count = weight / scale, counts.get(arm, 0)
        prior = concentration * share
        found += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return found


def mismatch(strata: tuple[Stratum, ...]) -> float:
    """ln of the e-value over all strata: of draws and of distinct callers, averaged (they depend on
    each other; a mean of e-values is one nonetheless).

    Not of what was answered: of a slower arm fewer draws have come to an end at any time, and a
    verdict on its slowness must not be blocked by it. What never ends is ended by its deadline, and
    counts as an error."""
    sums = [0.0, 0.0]
    for stratum in strata:
        for index, name in enumerate(("drawn", "units")):
            counts = {arm: getattr(found, name) for arm, found in stratum.arms.items()}
            sums[index] += log_evidence_of_mismatch(counts, stratum.weights)
    top = max(sums)
    return top + math.log(sum(math.exp(each - top) for each in sums) / len(sums))
