"""Arms of an experiment that cannot stand for one another are refused at the start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.config.squadron import SquadronConfig
from cluster.errors import ConfigError
from cluster.routing.table import ExperimentRoute, build_table
from cluster.tensors import Signature, TensorSpec
from tests.cluster.routing.test_table import CARD, facts

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
Y = TensorSpec(name="y", datatype="FP32", shape=(-1, 4))


def experiment(
    b: Signature, *, unavailable: str = "", is_decoupled: bool = False, **more: Any
) -> ExperimentRoute:
    content = {
        "variants": {"a": {"card": CARD}, "b": {"card": CARD, "optional": True}},
        "experiments": {"e": {"split": {"a": 9, "b": 1}, **more}},
    }
    of_b = replace(facts(unavailable), signature=b, is_decoupled=is_decoupled)
    config = SquadronConfig.model_validate(content)
    found = build_table(config, {"a": facts(), "b": of_b}).routes["e"]
    assert isinstance(found, ExperimentRoute)
    return found


@pytest.mark.parametrize(
    "fits",
    [
        Signature(inputs=(X,), outputs=(Y,)),
        Signature(inputs=(replace(X, shape=(-1, -1)),), outputs=(Y,)),
        # More than the first arm answers, and another number of classes.
        Signature(inputs=(X,), outputs=(replace(Y, shape=(-1, 9)), replace(Y, name="z"))),
    ],
)
def test_arms_that_take_and_answer_the_same_share_the_traffic(fits: Signature) -> None:
    assert experiment(fits).signature == facts().signature


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            Signature(inputs=(replace(X, name="text"),), outputs=(Y,)),
            r"b takes text \(FP32 \[-1,4\]\), and a x \(FP32",
        ),
        (Signature(inputs=(replace(X, datatype="INT32"),), outputs=(Y,)), r"b takes x \(INT32"),
        (Signature(inputs=(replace(X, shape=(-1, 5)),), outputs=(Y,)), r"b takes x \(FP32 \[-1,5"),
        (Signature(inputs=(replace(X, shape=(4,)),), outputs=(Y,)), r"b takes x \(FP32 \[4\]"),
        (Signature(inputs=(X,), outputs=(replace(Y, name="z"),)), r"b answers z .* without a's y"),
        (
            Signature(inputs=(X,), outputs=(), extra_outputs=(Y,)),
            r"b answers nothing, without a's y",
        ),
        (Signature(inputs=(X,), outputs=(replace(Y, datatype="FP64"),)), r"b answers y \(FP64"),
    ],
)
def test_arms_that_differ_are_refused_with_their_place(other: Signature, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"^experiments\.e\.split\.b: {told}.* may meet either$"):
        experiment(other)


def test_an_arm_that_streams_beside_one_that_does_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="b streams its answers and a does not"):
        experiment(facts().signature, is_decoupled=True)


def test_a_mirrored_variant_takes_what_the_arms_take() -> None:
    other = Signature(inputs=(replace(X, name="text"),), outputs=())

    with pytest.raises(ConfigError, match=r"^experiments\.e\.mirror\.variants: b takes text"):
        experiment(other, split={"a": 1}, mirror={"variants": ["b"]})
    # What it answers is compared as far as it can be.
    experiment(Signature(inputs=(X,), outputs=()), split={"a": 1}, mirror={"variants": ["b"]})


def test_what_cannot_be_served_here_is_not_held_against_the_others() -> None:
    nothing = Signature(inputs=(), outputs=())

    found = experiment(nothing, unavailable="no such engine", split={"b": 1, "a": 9})

    assert found.signature == facts().signature
