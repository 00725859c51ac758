from __future__ import annotations

import numpy as np
import pytest

from cluster.experiments.bandit import rewards_of, thompson_weights
from cluster.experiments.counts import ArmCounts
from tests.cluster.experiments.making import measure


def test_the_better_arm_gets_all_but_the_floor() -> None:
    weights = thompson_weights({"a": (700, 300), "b": (900, 100)}, floor=0.05, seed=1)

    assert weights == pytest.approx({"a": 0.05, "b": 0.95})


def test_arms_of_which_nothing_is_known_share_the_traffic() -> None:
    weights = thompson_weights({"a": (0, 0), "b": (0, 0)}, floor=0.05, seed=1)

    assert abs(weights["a"] - 0.5) < 0.05
    assert sum(weights.values()) == 1.0


def test_the_same_seed_gives_the_same_weights() -> None:
    rewards = {"a": (10.0, 5.0), "b": (9.0, 5.0)}

    assert thompson_weights(rewards, floor=0.1, seed=3) == thompson_weights(
        rewards, floor=0.1, seed=3
    )


def test_slow_and_failed_requests_are_bad_and_feedback_counts_by_its_value() -> None:
    counts = ArmCounts(
        errors=measure([1.0] * 2 + [0.0] * 8), slow=3, quality=measure([1.0, 0.5, 0.0])
    )

    assert rewards_of(counts, "service") == (5, 5)
    assert rewards_of(counts, "quality") == (1.5, 1.5)


def test_in_the_long_run_a_bandit_gives_the_best_arm_most_requests() -> None:
    random = np.random.default_rng(4)
    truth = {"a": 0.70, "b": 0.75, "c": 0.80}
    rewards = dict.fromkeys(truth, (0.0, 0.0))
    given = dict.fromkeys(truth, 0)
    weights = dict.fromkeys(truth, 1 / 3)
    for update in range(100):
        for arm, rate in truth.items():
            n = round(200 * weights[arm])
            good = int(random.binomial(n, rate))
            given[arm] += n
            rewards[arm] = (rewards[arm][0] + good, rewards[arm][1] + n - good)
        weights = thompson_weights(rewards, floor=0.05, seed=update)

    assert given["c"] > 0.6 * sum(given.values())
    assert min(given.values()) > 0.04 * sum(given.values())
