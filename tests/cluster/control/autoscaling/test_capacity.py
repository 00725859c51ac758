from __future__ import annotations

import random

import pytest

from cluster.control.autoscaling.capacity import replicas_for


def waits(num: int, rate: float, service_s: float, seed: int = 3) -> list[float]:
    """Of Poisson arrivals with exponential service in `num` servers, first come first served."""
    draw = random.Random(seed)
    free = [0.0] * num
    t, found = 0.0, []
    for _ in range(60_000):
        t += draw.expovariate(rate)
        earliest = min(range(num), key=free.__getitem__)
        begins = max(t, free[earliest])
        free[earliest] = begins + draw.expovariate(1 / service_s)
        found.append(begins - t)
    return found


@pytest.mark.parametrize(("rate", "wait_s"), [(8.0, 0.2), (40.0, 0.1), (95.0, 0.05)])
def test_the_number_keeps_the_wait_and_one_less_does_not(rate: float, wait_s: float) -> None:
    num = replicas_for(rate=rate, service_s=0.1, wait_s=wait_s, miss_share=0.01, variability=1.0)

    enough = [w > wait_s for w in waits(num, rate, 0.1)]
    one_less = [w > wait_s for w in waits(num - 1, rate, 0.1)]
    assert sum(enough) / len(enough) < 0.012
    assert sum(one_less) / len(one_less) > 0.01


def test_nothing_asked_needs_nothing_and_bursts_need_more() -> None:
    def num(rate: float, variability: float) -> int:
        return replicas_for(
            rate=rate, service_s=0.1, wait_s=0.3, miss_share=0.01, variability=variability
        )

    assert num(0.0, 1.0) == 0
    assert num(20, 0.5) <= num(20, 1.0) < num(20, 8.0)
