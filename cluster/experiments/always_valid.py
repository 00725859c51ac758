"""Evidence that may be looked at as often as one likes: mixture sequential tests of a difference.

`x` is an estimated difference, `variance` that of the estimate, `tau` the standard deviation of the
effects one expects (fixed beforehand). All functions take arrays as well.

Source: Johari, Pekelis and Walsh 2015, arXiv 1512.04922 (normal mixture, always-valid p-values);
Howard et al. 2021, arXiv 1810.08240 (one-sided mixture); METHOD.md, sections 3 and 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = float | NDArray[np.float64]

_normal_cdf = np.vectorize(lambda z: 0.5 * math.erfc(-z / math.sqrt(2)), otypes=[np.float64])


def log_evidence(x: Numbers, variance: Numbers, tau: float) -> Any:
    """ln of the e-value against "no difference": 1/e is an upper bound for the chance of ever
    seeing so much of it where there is none."""
    return 0.5 * np.log(variance / (variance + tau**2)) + (tau * x) ** 2 / (
        2 * variance * (variance + tau**2)
    )


def log_evidence_above(x: Numbers, variance: Numbers, tau: float) -> Any:
    """The same against "the difference is 0 or less": effects below 0 are no evidence."""
    z = tau * x / np.sqrt(variance * (variance + tau**2))
    # Far below zero the CDF underflows; the e-value is at most 1 there anyway.
    with np.errstate(divide="ignore"):
        return math.log(2) + log_evidence(x, variance, tau) + np.log(_normal_cdf(z))


def half_width(variance: Numbers, tau: float, alpha: float) -> Any:
    """Of the confidence sequence: with probability 1 - alpha it covers the truth at all times."""
    both = variance + tau**2
    return np.sqrt(2 * variance * both / tau**2 * np.log(np.sqrt(both / variance) / alpha))
