"""Thompson sampling: an arm gets as much of the traffic as it is likely to be the best.

Source: Russo et al. 2018, "A tutorial on Thompson sampling", arXiv 1707.02038;
METHOD.md, section 8.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cluster.experiments.counts import ArmCounts

NUM_DRAWS = 2000


def rewards_of(counts: ArmCounts, reward: str) -> tuple[float, float]:
    """(good, bad) requests of one arm."""
    if reward == "quality":
        good = min(max(0.0, counts.quality.total), float(counts.quality.count))
        return good, counts.quality.count - good
    bad = min(counts.errors.total + counts.slow, float(counts.requests))
    return counts.requests - bad, bad


def thompson_weights(
    rewards: Mapping[str, tuple[float, float]], *, floor: float, seed: int
) -> dict[str, float]:
    """Weights that sum to 1: the chance to be the best under Beta(1 + good, 1 + bad), drawn with
    `seed`, and none below `floor`."""
    random = np.random.default_rng(seed)
    arms = list(rewards)
    draws = np.stack([random.beta(1 + g, 1 + b, NUM_DRAWS) for g, b in rewards.values()])
    wins = np.bincount(draws.argmax(axis=0), minlength=len(arms)) / NUM_DRAWS
    spare = 1 - floor * len(arms)
    return {arm: floor + spare * float(share) for arm, share in zip(arms, wins, strict=True)}
