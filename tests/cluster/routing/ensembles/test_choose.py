from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cluster.config.ensembles.calls import SplitStep, SwitchStep
from cluster.requests import Parameter
from cluster.routing.ensembles.choose import split_by_weight, switch_by_parameter, switch_by_value
from cluster.tensors import tensor


def switch(*cases: dict[str, object], on: str = "value") -> SwitchStep:
    return SwitchStep.model_validate(
        {"switch": {on: "v"}, "cases": cases, "default": "rest", "outputs": {"y": "y"}}
    )


@pytest.mark.parametrize(
    ("value", "model"),
    [
        ("gold", "big"),
        (3, "three"),
        (3.0, "three"),
        (True, "yes"),
        (1, "rest"),
        ("3", "rest"),
        ("silver", "rest"),
        (None, "rest"),
    ],
)
def test_a_switch_by_parameter_compares_texts_numbers_and_truths_each_with_its_own_kind(
    value: Parameter | None, model: str
) -> None:
    step = switch(
        {"equals": "gold", "model": "big"},
        {"equals": 3, "model": "three"},
        {"equals": True, "model": "yes"},
        on="parameter",
    )

    assert switch_by_parameter(step, {} if value is None else {"v": value}).model == model


def test_a_switch_by_value_shares_the_rows_out() -> None:
    step = switch(
        {"at_least": 0.8, "model": "sure"}, {"at_least": 0.2, "below": 0.8, "model": "doubt"}
    )
    value = tensor("v", np.array([[0.9], [0.1], [0.5], [0.8], [np.nan]], np.float32))

    shares = switch_by_value(step, value)

    assert [(s.model, None if s.rows is None else s.rows.tolist()) for s in shares] == [
        ("sure", [0, 3]),
        ("rest", [1, 4]),
        ("doubt", [2]),
    ]


def test_a_batch_that_goes_one_way_is_not_taken_apart() -> None:
    step = switch({"equals": "de", "model": "german"})

    (share,) = switch_by_value(step, tensor("v", np.array(["de", "de"])))

    assert (share.model, share.rows) == ("german", None)


def test_a_split_draws_by_weight_and_keeps_a_caller_where_it_was() -> None:
    step = SplitStep.model_validate({"split": {"a": 3, "b": 1}, "outputs": {"y": "y"}})

    drawn = Counter(
        split_by_weight(step, name="e.0", key="", draw=i / 1000).model for i in range(1000)
    )
    kept = [
        {split_by_weight(step, name="e.0", key=f"u{u}", draw=d).model for d in (0.0, 0.99)}
        for u in range(400)
    ]

    assert drawn == {"a": 750, "b": 250}
    assert all(len(models) == 1 for models in kept)
    assert 60 < sum(models == {"b"} for models in kept) < 140
