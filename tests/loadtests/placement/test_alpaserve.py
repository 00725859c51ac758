from __future__ import annotations

import pytest

from loadtests.placement.alpaserve import row


@pytest.mark.parametrize("slo_scale", [2.0, 5.0])
def test_the_published_attainments_come_out_within_three_points(slo_scale: float) -> None:
    found = row(slo_scale, planning_seconds=200.0)

    assert found.replication == pytest.approx(found.replication_published, abs=0.03)
    assert found.searched == pytest.approx(found.searched_published, abs=0.03)


def test_model_parallelism_beats_replication_by_as_much_as_published() -> None:
    found = row(4.0, planning_seconds=200.0)

    published = found.searched_published - found.replication_published
    assert found.searched - found.replication == pytest.approx(published, abs=0.04)
    assert found.layout == "2 x pipeline 8"
