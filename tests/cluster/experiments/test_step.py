from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cluster.config.experiment import CanaryConfig, ExperimentConfig
from cluster.experiments.counts import ArmCounts
from cluster.experiments.judge import judge
from cluster.experiments.state import MAX_BANDIT_STRATA, ExperimentState, begin
from cluster.experiments.step import Step, next_step
from tests.cluster.experiments.making import arm, measure

CANARY: dict[str, Any] = {
    "split": {"a": 90, "b": 10},
    "canary": {"steps": [5, 50, 100], "step_s": 60, "step_requests": 200},
}


def _next(config: ExperimentConfig, state: ExperimentState, at_s: float) -> Step | None:
    judgement = judge(config, state.strata, state.peaks)
    return next_step(config, state, judgement, at_s=at_s, seed=1)


def _counted(state: ExperimentState, **arms: ArmCounts) -> ExperimentState:
    return state.counted(arms, state.weights)


def test_a_canary_begins_with_its_first_step() -> None:
    config = ExperimentConfig.model_validate(CANARY)

    assert begin(config, "x", 0.0).weights == {"a": 95, "b": 5}


def test_a_canary_moves_on_after_its_time_with_enough_requests() -> None:
    config = ExperimentConfig.model_validate(CANARY)
    state = _counted(begin(config, "x", 0.0), a=arm(1, requests=3800), b=arm(2, requests=200))

    assert _next(config, state, 59.0) is None
    step = _next(config, state, 60.0)

    assert step is not None
    assert (step.weights, step.step, step.status) == ({"a": 50, "b": 50}, 1, "running")
    assert "5 % of the traffic for 60 s (200 requests)" in step.reason


def test_a_canary_waits_for_requests() -> None:
    config = ExperimentConfig.model_validate(CANARY)
    state = _counted(begin(config, "x", 0.0), a=arm(1, requests=3600), b=arm(2, requests=180))

    assert _next(config, state, 600.0) is None


def test_after_the_last_step_a_canary_is_promoted() -> None:
    config = ExperimentConfig.model_validate(CANARY)
    state = begin(config, "x", 0.0)
    for number in range(2):
        share = round(40 * state.weights["b"])
        state = _counted(
            state, a=arm(number, requests=4000 - share), b=arm(9 + number, requests=share)
        )
        step = _next(config, state, 100.0 * (number + 1))
        assert step is not None
        state = step.applied(state, 100.0 * (number + 1))
    assert state.weights == {"a": 5, "b": 95}

    state = _counted(state, a=arm(6, requests=100), b=arm(7, requests=1900))
    step = _next(config, state, 1000.0)

    assert step is not None
    assert (step.status, step.weights) == ("promoted", {"a": 0, "b": 100})


def _at_the_last_step(**canary: Any) -> tuple[ExperimentConfig, ExperimentState]:
    """Everything was well until then."""
    config = ExperimentConfig.model_validate(
        {**CANARY, "canary": {**CANARY["canary"], **canary}},
    )
    state = begin(config, "x", 0.0)
    for number in range(2):
        share = round(40 * state.weights["b"])
        state = _counted(
            state, a=arm(number, requests=4000 - share), b=arm(9 + number, requests=share)
        )
        step = _next(config, state, 100.0 * (number + 1))
        assert step is not None
        state = step.applied(state, 100.0 * (number + 1))
    return config, state


def test_a_canary_that_fails_only_at_its_last_step_is_rolled_back() -> None:
    config, state = _at_the_last_step()

    state = _counted(state, a=arm(6, requests=200), b=arm(7, requests=3800, log_latency=-4.5))
    step = _next(config, state, 1000.0)

    assert step is not None
    assert (step.status, step.weights) == ("rolled_back", {"a": 5, "b": 0})
    assert "latency" in step.reason


def test_errors_of_the_last_step_alone_roll_it_back() -> None:
    config, state = _at_the_last_step()

    state = _counted(state, a=arm(6, requests=200), b=arm(7, requests=3800, error_rate=0.2))
    step = _next(config, state, 1000.0)

    assert step is not None
    assert (step.status, step.weights) == ("rolled_back", {"a": 5, "b": 0})
    assert "errors" in step.reason


def test_the_last_step_waits_until_the_control_can_be_compared_with() -> None:
    config, state = _at_the_last_step()

    few = _counted(state, a=arm(6, requests=9), b=arm(7, requests=300))

    assert _next(config, few, 1000.0) is None
    assert _next(config, _counted(few, a=arm(5, requests=1)), 1000.0) is not None


def test_without_a_control_share_the_last_step_moves_on_by_its_time() -> None:
    config, state = _at_the_last_step(control_share=0)
    assert state.weights == {"a": 0, "b": 100}

    step = _next(config, _counted(state, b=arm(7)), 1000.0)

    assert step is not None
    assert step.status == "promoted"


@given(
    shares=st.sets(st.floats(0.1, 100), min_size=1, max_size=6),
    control_share=st.floats(0, 50),
)
def test_a_canarys_share_never_falls_and_never_exceeds_its_step(
    shares: set[float], control_share: float
) -> None:
    canary = CanaryConfig(steps=tuple(sorted(shares)), control_share=control_share)

    watched = [canary.watched_share(step) for step in range(len(canary.steps))]

    assert watched == sorted(watched)
    assert all(now <= step for now, step in zip(watched, canary.steps, strict=True))


def test_a_slower_canary_is_rolled_back_at_once() -> None:
    config = ExperimentConfig.model_validate(CANARY)
    slow = arm(2, requests=500, log_latency=-4.6)
    state = _counted(begin(config, "x", 0.0), a=arm(1, requests=9500), b=slow)

    step = _next(config, state, 10.0)

    assert step is not None
    assert (step.status, step.weights) == ("rolled_back", {"a": 95, "b": 0})
    assert "latency" in step.reason
    rolled_back = step.applied(state, 10.0)
    assert _next(config, rolled_back, 1000.0) is None


def test_weights_set_by_hand_are_not_changed_by_a_step_but_by_a_broken_guardrail() -> None:
    config = ExperimentConfig.model_validate(CANARY)
    state = replace(begin(config, "x", 0.0), status="held")
    good = _counted(state, a=arm(1, requests=9500), b=arm(2, requests=500))
    bad = _counted(state, a=arm(1, requests=9500), b=arm(2, requests=500, log_latency=-4.6))

    assert _next(config, good, 1000.0) is None
    step = _next(config, bad, 1000.0)
    assert step is not None
    assert step.status == "rolled_back"


def test_a_plain_split_with_guardrails_loses_only_the_broken_arm() -> None:
    config = ExperimentConfig.model_validate({"split": {"a": 1, "b": 1, "c": 1}, "guardrails": {}})
    state = _counted(begin(config, "x", 0.0), a=arm(1), b=arm(2, log_latency=-4.5), c=arm(3))

    step = _next(config, state, 10.0)

    assert step is not None
    assert (step.weights, step.status) == ({"a": 1, "b": 0, "c": 1}, "running")


def test_a_bandit_moves_its_weights_after_its_time() -> None:
    config = ExperimentConfig.model_validate(
        {"split": {"a": 1, "b": 1}, "bandit": {"update_s": 10, "floor": 0.1}}
    )
    bad = ArmCounts(errors=measure([1.0] * 50 + [0.0] * 50))
    good = ArmCounts(errors=measure([0.0] * 100))
    state = _counted(begin(config, "x", 0.0), a=good, b=bad)

    assert _next(config, state, 9.0) is None
    step = _next(config, state, 10.0)

    assert step is not None
    assert step.weights == {"a": 0.9, "b": 0.1}


def test_a_bandit_counts_every_request_once_also_when_its_weights_stay() -> None:
    config = ExperimentConfig.model_validate(
        {"split": {"a": 1, "b": 1}, "bandit": {"update_s": 10, "discount": 1.0}}
    )
    state = begin(config, "x", 0.0)
    for second in (10.0, 20.0, 30.0):
        counts = ArmCounts(errors=measure([0.0] * 100))
        bad = ArmCounts(errors=measure([1.0] * 100))
        state = _counted(state, a=counts, b=bad)
        step = _next(config, state, second)
        assert step is not None
        state = step.applied(state, second)

    assert state.rewards == {"a": (300, 0), "b": (0, 300)}


BANDIT = {
    "split": {"a": 1, "b": 1},
    "bandit": {"update_s": 10, "discount": 1.0, "reward": "quality", "floor": 0.1},
}


def _rated(good: int, bad: int) -> ArmCounts:
    return ArmCounts(quality=measure([1.0] * good + [0.0] * bad))


def test_a_bandit_learns_from_feedback_that_comes_after_an_update() -> None:
    config = ExperimentConfig.model_validate(BANDIT)
    state = begin(config, "x", 0.0)
    first = state.weights
    step = _next(config, _counted(state, a=_rated(1, 0)), 10.0)
    assert step is not None
    state = step.applied(_counted(state, a=_rated(1, 0)), 10.0)

    late = state.counted({"a": _rated(79, 20), "b": _rated(10, 90)}, first)
    step = _next(config, late, 20.0)

    assert step is not None
    assert step.rewards == {"a": (80, 20), "b": (10, 90)}
    assert step.weights["a"] == 0.9


def test_a_bandit_forgets_nothing_while_nobody_asks() -> None:
    """Or a night without requests would undo what the day has shown."""
    config = ExperimentConfig.model_validate(
        {"split": {"a": 1, "b": 1}, "bandit": {"update_s": 10, "discount": 0.5}}
    )
    state = begin(config, "x", 0.0)
    assert _next(config, state, 10.0) is None
    state = _counted(state, a=ArmCounts(errors=measure([0.0] * 100)))
    step = _next(config, state, 20.0)
    assert step is not None
    state = step.applied(state, 20.0)

    assert [_next(config, state, at_s) for at_s in (30.0, 40.0, 9000.0)] == [None] * 3
    late = state.counted({"b": ArmCounts(errors=measure([1.0] * 10))}, state.weights)
    step = _next(config, late, 9001.0)

    assert step is not None
    assert step.rewards == {"a": (50, 0), "b": (0, 10)}


def test_a_bandit_learns_from_feedback_for_weights_that_are_forgotten() -> None:
    config = ExperimentConfig.model_validate(BANDIT)
    state = begin(config, "x", 0.0)
    first = state.weights
    for turn in range(1, MAX_BANDIT_STRATA + 3):
        state = _counted(state, a=_rated(1, 0))
        step = _next(config, state, 10.0 * turn)
        assert step is not None
        state = step.applied(state, 10.0 * turn)
    assert len(state.strata) == MAX_BANDIT_STRATA
    assert first not in [dict(each.weights) for each in state.strata]

    late = state.counted({"a": _rated(80, 20), "b": _rated(10, 90)}, first)
    step = _next(config, late, 10_000.0)

    assert step is not None
    assert step.rewards == {"a": (80 + MAX_BANDIT_STRATA + 2, 20), "b": (10, 90)}


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60), st.booleans()),
        max_size=50,
    )
)
def test_a_bandit_counts_every_value_once_however_late(
    told: list[tuple[int, int, int, bool]],
) -> None:
    """`told`: good and bad values for the weights of so many updates ago, and whether an update
    comes next."""
    config = ExperimentConfig.model_validate(BANDIT)
    state = begin(config, "x", 0.0)
    used, good, bad, at_s = [state.weights], 0, 0, 0.0
    for num_good, num_bad, age, is_updated in [*told, (0, 0, 0, True)]:
        if age < len(used) and (age < MAX_BANDIT_STRATA or state.forgotten):
            state = state.counted({"a": _rated(num_good, num_bad)}, used[-1 - age])
            good, bad = good + num_good, bad + num_bad
        if is_updated:
            at_s += 10
            step = _next(config, state, at_s)
            if step is not None:
                state = step.applied(state, at_s)
                used.append(state.weights)

    assert state.rewards.get("a", (0, 0)) == (good, bad)


def test_what_was_paid_by_an_earlier_version_is_not_paid_again() -> None:
    config = ExperimentConfig.model_validate(BANDIT)
    state = begin(config, "x", 0.0).counted({"a": _rated(5, 5)}, {"a": 1, "b": 1})
    step = _next(config, state, 10.0)
    assert step is not None
    old = replace(step.applied(state, 10.0), paid={})

    again = _next(config, old.counted({"a": _rated(2, 1)}, old.weights), 20.0)

    assert again is not None
    assert again.rewards == {"a": (7, 6), "b": (0, 0)}


def test_counts_go_to_the_weights_they_were_split_by() -> None:
    config = ExperimentConfig.model_validate({"split": {"a": 1, "b": 1}})
    before = begin(config, "x", 0.0)
    after = before.with_weights({"a": 3, "b": 1}, 5.0)

    late = after.counted({"a": ArmCounts(drawn=7)}, {"a": 1, "b": 1})

    assert [each.of("a").drawn for each in late.strata] == [7, 0]
    assert late.now.weights == {"a": 3, "b": 1}


def test_weights_that_come_back_continue_where_they_were() -> None:
    config = ExperimentConfig.model_validate({"split": {"a": 1, "b": 1}})
    state = begin(config, "x", 0.0).counted({"a": ArmCounts(drawn=7)}, {"a": 1, "b": 1})

    back = state.with_weights({"a": 3, "b": 1}, 5.0).with_weights({"a": 1, "b": 1}, 6.0)

    assert back.now.of("a").drawn == 7
    assert len(back.strata) == 2
