from __future__ import annotations

import math

import pytest

from actors.experiments.tally import ArmTally


def test_the_sums_are_those_of_the_requests() -> None:
    tally = ArmTally()
    tally.served(3, 0.010)
    tally.served(3, 0.020)
    tally.served(9, 0.040)
    tally.failed(9)
    tally.rated(3, 0.5)

    found = tally.counts()

    logs = [math.log(s) for s in (0.010, 0.020, 0.040)]
    assert found.log_latency.count == 3
    assert found.log_latency.total == pytest.approx(sum(logs))
    assert found.log_latency.squares == pytest.approx(sum(x * x for x in logs))
    assert found.log_latency.counts[3] == 2
    assert (found.errors.count, found.errors.total, found.errors.squares) == (4, 1, 1)
    assert (found.quality.count, found.quality.total, found.quality.squares) == (1, 0.5, 0.25)
    assert sum(found.latency_buckets.values()) == 3


def test_a_tally_of_nothing_is_nothing() -> None:
    assert ArmTally().counts().requests == 0
