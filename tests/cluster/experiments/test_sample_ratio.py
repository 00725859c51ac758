from __future__ import annotations

import math

from cluster.experiments.counts import ArmCounts, Stratum
from cluster.experiments.sample_ratio import log_evidence_of_mismatch, mismatch


def test_counts_as_the_weights_say_are_no_evidence() -> None:
    assert log_evidence_of_mismatch({"a": 9000, "b": 1000}, {"a": 90, "b": 10}) < 0


def test_counts_far_from_the_weights_are_evidence() -> None:
    found = log_evidence_of_mismatch({"a": 8800, "b": 1200}, {"a": 90, "b": 10})

    assert found > math.log(1000)


def test_an_arm_of_weight_zero_is_not_looked_at() -> None:
    assert log_evidence_of_mismatch({"a": 100, "b": 3}, {"a": 1, "b": 0}) == 0.0


def test_an_arm_whose_answers_are_still_under_way_is_no_mismatch() -> None:
    """A slow arm: 200 draws a second, six seconds each; its verdict must not be blocked."""
    arms = {"a": ArmCounts(drawn=5000, answered=5000), "b": ArmCounts(drawn=5000, answered=3800)}

    assert mismatch((Stratum(weights={"a": 1, "b": 1}, arms=arms),)) < 0


def test_draws_that_are_not_as_the_weights_say_are_a_mismatch() -> None:
    arms = {"a": ArmCounts(drawn=5000), "b": ArmCounts(drawn=4300)}

    assert mismatch((Stratum(weights={"a": 1, "b": 1}, arms=arms),)) > math.log(1000)


def test_callers_are_units_of_their_own() -> None:
    arms = {"a": ArmCounts(units=2000), "b": ArmCounts(units=1500)}

    assert mismatch((Stratum(weights={"a": 1, "b": 1}, arms=arms),)) > math.log(1000)
