from __future__ import annotations

import pytest

from actors.autoscaling.door import num_in_time
from cluster.observability.metrics import LATENCY_BUCKETS_S


@pytest.mark.parametrize(("slo_s", "expected"), [(0.5, 3), (0.75, 8), (1.0, 13), (90.0, 17)])
def test_answers_in_time_are_read_off_the_doors_own_buckets(slo_s: float, expected: int) -> None:
    buckets = [0] * (len(LATENCY_BUCKETS_S) + 1)
    buckets[LATENCY_BUCKETS_S.index(0.5)] = 3
    buckets[LATENCY_BUCKETS_S.index(1.0)] = 10
    buckets[-1] = 4

    assert num_in_time(buckets, slo_s) == expected
