from __future__ import annotations

import math

import numpy as np
import pytest

from cluster.experiments.counts import ArmCounts, Stratum
from cluster.experiments.difference import Difference, difference
from tests.cluster.experiments.making import arm, measure


def _latency(*strata: Stratum) -> Difference:
    found = difference(strata, "a", "b", lambda counts: counts.log_latency)
    assert found is not None
    return found


def test_independent_requests_have_the_variance_of_two_means() -> None:
    found = _latency(Stratum(weights={}, arms={"a": arm(1), "b": arm(2, log_latency=-4.9)}))

    exact = 2 * 0.3**2 / 2000
    assert found.value == pytest.approx(0.1, abs=4 * math.sqrt(exact))
    assert 0.9 * exact < found.variance < 1.8 * exact


def test_callers_that_differ_make_the_difference_less_sure() -> None:
    random = np.random.default_rng(5)
    levels = random.normal(0, 1, 64)

    def of_callers(first: int) -> ArmCounts:
        values = [float(levels[(first + i // 50) % 64]) for i in range(1600)]
        return ArmCounts(log_latency=measure(values, lambda i: first + i // 50))

    found = _latency(Stratum(weights={}, arms={"a": of_callers(0), "b": of_callers(32)}))

    # 32 callers an arm, whatever the number of their requests.
    assert found.variance > 10 * 2 * float(levels.var()) / 1600
    assert found.design_effect > 10


def test_a_moment_that_is_slow_for_both_arms_does_not_make_it_less_sure() -> None:
    random = np.random.default_rng(6)
    moments = random.normal(0, 3, 64)

    def at_moments(seed: int) -> ArmCounts:
        noise = np.random.default_rng(seed).normal(0, 0.3, 6400)
        values = [float(moments[i % 64] + noise[i]) for i in range(6400)]
        return ArmCounts(log_latency=measure(values))

    strata = (Stratum(weights={}, arms={"a": at_moments(1), "b": at_moments(2)}),)
    found = _latency(*strata)

    assert abs(found.value) < 0.05
    naive = 2 * (9 + 0.09) / 6400
    assert found.variance < 2 * naive


def test_a_busy_hour_with_other_weights_does_not_count_as_an_effect() -> None:
    """Simpson's paradox: arm b had most of its requests while everything was slow."""
    quiet = {"a": arm(1, requests=3000), "b": arm(2, requests=300)}
    busy = {
        "a": arm(3, requests=300, log_latency=-3.0),
        "b": arm(4, requests=3000, log_latency=-3.0),
    }

    found = _latency(Stratum(weights={}, arms=quiet), Stratum(weights={}, arms=busy))

    assert abs(found.value) < 0.05


def test_few_clusters_say_nothing() -> None:
    few = ArmCounts(log_latency=measure([0.1, 0.2, 0.3] * 50, lambda i: i % 3))
    strata = (Stratum(weights={}, arms={"a": few, "b": few}),)

    assert difference(strata, "a", "b", lambda counts: counts.log_latency) is None


@pytest.mark.parametrize("wrong", [0.0, 1.0])
def test_an_arm_that_is_always_wrong_beside_one_that_is_always_right_is_seen(wrong: float) -> None:
    right = measure([1.0] * 200)
    strata = (
        Stratum(
            weights={},
            arms={"a": ArmCounts(quality=right), "b": ArmCounts(quality=measure([wrong] * 200))},
        ),
    )

    found = difference(strata, "a", "b", lambda counts: counts.quality)

    if wrong:
        assert found is None  # two that never varied and are equal say nothing
    else:
        assert found is not None
        assert found.value == -1.0
        assert 0 < found.variance < 0.01
