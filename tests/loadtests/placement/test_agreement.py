from __future__ import annotations

import pytest

from loadtests.placement.agreement import both


def test_the_fast_simulator_and_the_production_scheduler_agree_within_two_points() -> None:
    replication, best = both(3.0)

    assert best.layout == "2 x pipeline 8"
    for found in (replication, best):
        assert found.fast == pytest.approx(found.production, abs=0.02)
