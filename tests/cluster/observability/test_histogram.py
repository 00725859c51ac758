from __future__ import annotations

from bisect import bisect_left

import prometheus_client.values
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from cluster.observability.histogram import observe_many

BOUNDS = (0.1, 1.0, 10.0)


def text(values: list[float], *, at_once: bool) -> bytes:
    registry = CollectorRegistry()
    histogram = Histogram("h", "some", registry=registry, buckets=BOUNDS)
    if at_once:
        counts = [0] * (len(BOUNDS) + 1)
        for value in values:
            counts[bisect_left(BOUNDS, value)] += 1
        observe_many(histogram, counts, sum(values))
    else:
        for value in values:
            histogram.observe(value)
    return b"\n".join(
        line for line in generate_latest(registry).splitlines() if b"_created" not in line
    )


def test_many_at_once_equal_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another test of this process may have switched to files (`make_metrics`).
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.MutexValue)
    values = [0.1, 0.05, 1.0, 1.5, 100.0, 10.0]

    assert text(values, at_once=True) == text(values, at_once=False)
