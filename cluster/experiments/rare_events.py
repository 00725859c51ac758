"""Evidence that one arm has more errors than another, exact also when there are few of them."""

from __future__ import annotations

import math

import numpy as np

from cluster.experiments.counts import Stratum
from cluster.experiments.difference import difference

RELATIVE_RISKS = np.geomspace(1.1, 1000, 24)
"""The alternatives that are mixed, each with the same weight."""


def log_evidence_of_more(
    strata: tuple[Stratum, ...], control: str, arm: str, *, tolerated: float, is_slow: bool = False
) -> float:
    """ln of the e-value against "the arm's rate is at most (1 + tolerated) times the control's".

    Given that an error happened, it is the arm's with probability r n_b / (r n_b + n_a) when the
    rates are as 1 : r; so errors are draws, and the mixture of their likelihood ratios is an
    e-value (METHOD.md, section 5). Errors that come together count for less: the
    exponent 1 / design effect keeps it one. `is_slow`: requests above the SLO instead of errors.
    """
    log_ratios = np.zeros(len(RELATIVE_RISKS))
    for stratum in strata:
        a, b = stratum.of(control), stratum.of(arm)
        n_a, n_b = a.errors.count, b.errors.count
        if n_a == 0 or n_b == 0:
            continue
        events_a = a.slow if is_slow else a.errors.total
        events_b = b.slow if is_slow else b.errors.total
        base = (1 + tolerated) * n_b / n_a
        worse = base * RELATIVE_RISKS
        log_ratios += events_b * (np.log(worse / (1 + worse)) - math.log(base / (1 + base)))
        log_ratios += events_a * (math.log1p(base) - np.log1p(worse))
    found = None if is_slow else difference(strata, control, arm, lambda arm: arm.errors)
    log_ratios /= found.design_effect if found is not None else 1.0
    top = float(log_ratios.max())
    return top + math.log(float(np.exp(log_ratios - top).mean()))
