from __future__ import annotations

from loadtests.placement.scale import timed


def test_a_slice_of_the_large_case_is_planned_with_every_model_in_place() -> None:
    found = timed(24, 2)

    assert found.devices == 16
    assert found.replicas >= 24
    assert found.attainment > 0.9
