"""Counts as a traffic would give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cluster.experiments.counts import NUM_CLUSTERS, ArmCounts, Measure


def measure(values: Sequence[float], cluster_of: Callable[[int], int] = lambda i: i) -> Measure:
    """Observation i falls into cluster `cluster_of(i)` modulo their number."""
    counts, totals = [0] * NUM_CLUSTERS, [0.0] * NUM_CLUSTERS
    for index, value in enumerate(values):
        cluster = cluster_of(index) % NUM_CLUSTERS
        counts[cluster] += 1
        totals[cluster] += float(value)
    return Measure(
        counts=tuple(counts), totals=tuple(totals), squares=float(sum(v * v for v in values))
    )


def arm(
    seed: int,
    *,
    requests: int = 2000,
    log_latency: float = -5.0,
    error_rate: float = 0.0,
    accuracy: float | None = None,
) -> ArmCounts:
    random = np.random.default_rng(seed)
    rated = [] if accuracy is None else list((random.random(requests) < accuracy) * 1.0)
    return ArmCounts(
        drawn=requests,
        answered=requests,
        log_latency=measure(list(random.normal(log_latency, 0.3, requests))),
        errors=measure(list((random.random(requests) < error_rate) * 1.0)),
        quality=measure(rated) if rated else Measure(),
    )
