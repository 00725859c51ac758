from __future__ import annotations

import math
from typing import Any

from cluster.config.experiment import ExperimentConfig
from cluster.experiments.counts import ArmCounts, Stratum
from cluster.experiments.judge import Judgement, judge
from tests.cluster.experiments.making import arm

WEIGHTS = {"a": 1.0, "b": 1.0}


def _judged(a: ArmCounts, b: ArmCounts, **config: Any) -> Judgement:
    sections: dict[str, Any] = {"guardrails": {}, **config}
    asked = ExperimentConfig.model_validate({"split": WEIGHTS, **sections})
    return judge(asked, (Stratum(weights=WEIGHTS, arms={"a": a, "b": b}),), {})


def test_equal_arms_keep_going_and_the_interval_covers_zero() -> None:
    found = _judged(arm(1), arm(2))

    assert found.verdict == "keep_going"
    low, high = found.arms["b"].interval or (1, 1)
    assert low < 0 < high
    assert found.sample_ratio.ok


def test_a_faster_arm_is_promoted_and_the_improvement_is_said() -> None:
    found = _judged(arm(1), arm(2, log_latency=-5.2))

    assert found.verdict == "promote"
    assert math.isclose(found.arms["b"].improvement or 0, 1 - math.exp(-0.2), abs_tol=0.03)
    assert "latency" in found.reason


def test_a_slower_arm_is_rolled_back_with_the_guardrail_named() -> None:
    found = _judged(arm(1), arm(2, log_latency=-4.8))

    assert found.verdict == "roll_back"
    assert "latency" in found.reason
    assert "at most 5.0% is tolerated" in found.reason


def test_a_less_accurate_arm_is_rolled_back_for_its_quality() -> None:
    found = _judged(arm(1, requests=20_000, accuracy=0.75), arm(2, requests=20_000, accuracy=0.72))

    assert found.verdict == "roll_back"
    assert "quality" in found.reason


def test_an_arm_with_errors_is_rolled_back() -> None:
    found = _judged(arm(1), arm(2, error_rate=0.02))

    assert found.verdict == "roll_back"
    assert "errors" in found.reason


def test_without_guardrails_a_slower_arm_is_measured_and_nothing_more() -> None:
    found = _judged(arm(1), arm(2, log_latency=-4.8), guardrails=None)

    assert found.verdict == "keep_going"
    assert "worse" in found.reason


def test_a_sample_ratio_mismatch_blocks_the_verdict() -> None:
    found = _judged(arm(1, requests=3000), arm(2, requests=2000, log_latency=-5.2))

    assert found.verdict == "blocked"
    assert not found.sample_ratio.ok


def test_what_was_certain_once_stays_certain() -> None:
    config = ExperimentConfig.model_validate({"split": WEIGHTS})
    first = (Stratum(weights=WEIGHTS, arms={"a": arm(1), "b": arm(2, log_latency=-5.2)}),)
    later = (Stratum(weights=WEIGHTS, arms={"a": arm(1), "b": arm(2, log_latency=-5.01)}),)

    sure = judge(config, first, {})
    after = judge(config, later, sure.peaks)

    assert after.arms["b"].p_value == sure.arms["b"].p_value


def test_too_few_requests_are_not_judged() -> None:
    found = _judged(arm(1, requests=60), arm(2, requests=60, log_latency=-4.0))

    assert found.verdict == "keep_going"
    assert found.arms["b"].p_value is None


def test_a_bandit_is_measured_and_not_judged() -> None:
    found = _judged(arm(1), arm(2, log_latency=-4.0), guardrails=None, bandit={})

    assert found.verdict == "keep_going"
    assert found.arms["b"].p_value is None


def test_a_canary_that_is_slower_only_under_load_is_rolled_back_at_that_step() -> None:
    """With few requests its replica queues less than the control's, and it looks faster."""
    steps = (95.0, 5.0), (75.0, 25.0), (50.0, 50.0)
    looks = -0.4, -0.1, 0.18
    strata = tuple(
        Stratum(
            weights={"a": a, "b": b},
            arms={
                "a": arm(number, requests=round(40 * a)),
                "b": arm(10 + number, requests=round(40 * b), log_latency=-5.0 + look),
            },
        )
        for number, ((a, b), look) in enumerate(zip(steps, looks, strict=True))
    )
    split = {"a": 1.0, "b": 1.0}
    canary = ExperimentConfig.model_validate({"split": split, "canary": {"steps": [5, 25, 50]}})
    plain = ExperimentConfig.model_validate({"split": split, "guardrails": {}})

    assert judge(canary, strata[:2], {}).verdict != "roll_back"
    found = judge(canary, strata, {})
    assert found.verdict == "roll_back"
    assert "latency" in found.reason
    assert judge(plain, strata, {}).verdict != "roll_back"
