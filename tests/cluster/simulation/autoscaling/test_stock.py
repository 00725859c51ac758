from __future__ import annotations

import math
import random

from cluster.simulation.autoscaling.stock import StockConfig, StockPolicy


def test_a_number_must_be_wanted_for_the_whole_delay() -> None:
    policy = StockPolicy(StockConfig(max_replicas=10, look_back_period_s=1))

    def decide(at_s: float, num_ongoing: int) -> int:
        return policy.decide(at_s, num_ongoing=num_ongoing, num_running=1, num_target=1)

    assert [decide(t, 8) for t in range(30)] == [1] * 30
    assert decide(30, 8) == 4


def test_zero_replicas_wake_with_the_first_request() -> None:
    policy = StockPolicy(StockConfig(min_replicas=0, max_replicas=10))

    assert policy.decide(0, num_ongoing=0, num_running=0, num_target=0) == 0
    assert policy.decide(1, num_ongoing=1, num_running=0, num_target=0) == 1


def test_it_goes_to_one_before_it_goes_to_zero() -> None:
    config = StockConfig(
        min_replicas=0, max_replicas=10, downscale_delay_s=0, look_back_period_s=0.1
    )
    policy = StockPolicy(config)

    assert policy.decide(0, num_ongoing=0, num_running=4, num_target=4) == 1
    assert policy.decide(1, num_ongoing=0, num_running=1, num_target=1) == 0


def test_the_total_is_the_mean_of_the_look_back() -> None:
    policy = StockPolicy(StockConfig(max_replicas=100, upscale_delay_s=0, look_back_period_s=10))
    draw = random.Random(2)
    counts = [draw.randrange(40) for _ in range(11)]

    found = [
        policy.decide(t, num_ongoing=count, num_running=1, num_target=1)
        for t, count in enumerate(counts)
    ][-1]

    assert found == math.ceil(sum(counts) / 11 / 2)
