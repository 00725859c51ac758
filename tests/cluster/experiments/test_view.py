from __future__ import annotations

from typing import Any

import orjson

from cluster.config.experiment import ExperimentConfig
from cluster.experiments.counts import Agreement, ArmCounts
from cluster.experiments.report import Cost
from cluster.experiments.state import MAX_STRATA, begin
from cluster.experiments.step import Step
from cluster.experiments.view import experiment_view
from tests.cluster.experiments.making import arm


def _view(b: ArmCounts, **sections: Any) -> Any:
    config = ExperimentConfig.model_validate({"split": {"a": 3, "b": 1}, **sections})
    state = begin(config, "digest", 100.0)
    state = state.counted({"a": arm(1, accuracy=0.8), "b": b}, state.weights)
    return orjson.loads(orjson.dumps(experiment_view("e", config, state, 200.0)))


def test_an_experiment_is_shown_with_the_names_that_others_rely_on() -> None:
    found = _view(arm(2, requests=700, accuracy=0.8))

    assert found.keys() >= {"name", "status", "verdict", "reason", "sample_ratio", "arms"}
    assert found["sample_ratio"].keys() == {"ok", "p_value"}
    a, b = found["arms"]
    names = {"name", "weight", "requests", "errors", "latency_ms", "quality", "interval"}
    assert a.keys() >= names
    assert a["latency_ms"].keys() == {"p50", "p99"}
    assert (a["name"], a["weight"], a["requests"]) == ("a", 3, 2000)
    assert (a["interval"], len(b["interval"])) == (None, 2)
    assert 0.7 < b["quality"] < 0.9


def test_what_was_carried_out_stays_the_verdict() -> None:
    config = ExperimentConfig.model_validate({"split": {"a": 3, "b": 1}})
    step = Step(weights={"a": 3, "b": 0}, status="rolled_back", reason="b: too slow")
    state = step.applied(begin(config, "digest", 100.0), 150.0)

    found = experiment_view("e", config, state, 200.0)

    assert (found["verdict"], found["reason"]) == ("roll_back", "b: too slow")


def test_a_mirrored_variant_is_shown_with_its_agreement() -> None:
    config = ExperimentConfig.model_validate(
        {"split": {"a": 1}, "mirror": {"variants": ["shadow"]}}
    )
    state = begin(config, "digest", 100.0)
    mirrored = ArmCounts(agreement=Agreement(count=4, same_top1=3, num_ranked=4))
    state = state.counted({"a": arm(1), "shadow": mirrored}, state.weights)

    found: Any = experiment_view("e", config, state, 200.0)

    assert [each["name"] for each in found["arms"]] == ["a", "shadow"]
    assert found["arms"][1]["agreement"]["top1"] == 0.75
    assert found["arms"][0]["agreement"] is None


def test_answers_that_cannot_be_compared_are_not_shown_as_equal() -> None:
    config = ExperimentConfig.model_validate(
        {"split": {"a": 1}, "mirror": {"variants": ["shadow"]}}
    )
    state = begin(config, "digest", 100.0)
    mirrored = ArmCounts(agreement=Agreement(count=4, num_unlike=4))
    state = state.counted({"a": arm(1), "shadow": mirrored}, state.weights)

    found: Any = experiment_view("e", config, state, 200.0)

    agreement = found["arms"][1]["agreement"]
    assert (agreement["mirrored"], agreement["unlike"]) == (4, 4)
    assert agreement["max_abs_difference"] is None


def test_what_is_shown_counts_from_the_beginning_also_when_old_weights_are_forgotten() -> None:
    config = ExperimentConfig.model_validate({"split": {"a": 1, "b": 1}, "bandit": {}})
    state = begin(config, "digest", 100.0)
    for turn in range(MAX_STRATA + 8):
        state = state.counted({"a": arm(1, requests=50)}, state.weights)
        state = state.with_weights({"a": 1.0, "b": turn + 2.0}, 100.0 + turn)

    found: Any = experiment_view("e", config, state, 300.0)

    assert found["arms"][0]["requests"] == 50 * (MAX_STRATA + 8)
    assert found["arms"][0]["requests_per_s"] == 50 * (MAX_STRATA + 8) / 200


def test_an_arms_cost_is_that_of_its_own_rows() -> None:
    config = ExperimentConfig.model_validate({"split": {"a": 3, "b": 1}})
    state = begin(config, "digest", 100.0)
    state = state.counted({"a": ArmCounts(rows=25), "b": ArmCounts(rows=5)}, state.weights)

    costs = {"a": Cost(rows=100, engine_s=8.0)}
    found: Any = experiment_view("e", config, state, 200.0, costs)

    a, b = found["arms"]
    assert (a["engine_s"], a["engine_ms_per_row"]) == (2.0, 80.0)
    assert (b["engine_s"], b["engine_ms_per_row"]) == (0.0, None)
