from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from cluster.experiments.quantiles import bucket_of, quantile_ms


def test_quantiles_are_within_a_bucket_of_the_exact_ones() -> None:
    seconds = np.random.default_rng(1).lognormal(-4, 0.7, 20_000)
    buckets = Counter(bucket_of(math.log(s)) for s in seconds)

    for share in (0.5, 0.99):
        exact_ms = 1e3 * float(np.quantile(seconds, share))
        assert quantile_ms(buckets, share) == pytest.approx(exact_ms, rel=0.04)


def test_without_requests_there_is_no_quantile() -> None:
    assert quantile_ms({}, 0.5) is None
