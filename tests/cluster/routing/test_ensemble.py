from __future__ import annotations

import pytest

from cluster.config.ensemble import EnsembleConfig
from cluster.errors import ConfigError
from cluster.routing.ensemble import EnsemblePlan, plan_ensemble
from cluster.tensors import Signature, TensorSpec

SIGNATURES = {
    "one": Signature(
        inputs=(TensorSpec(name="image", datatype="BYTES", shape=(-1,)),),
        outputs=(TensorSpec(name="labels", datatype="BYTES", shape=(-1, 5)),),
        extra_outputs=(TensorSpec(name="probabilities", datatype="FP32", shape=(-1, 9)),),
    ),
    "head": Signature(
        inputs=(TensorSpec(name="vector", datatype="FP32", shape=(-1, 9)),),
        outputs=(TensorSpec(name="score", datatype="FP32", shape=(-1,)),),
    ),
}
LABELS = {"one": tuple(b"abcdefghi"[i : i + 1] for i in range(9))}


def plan(**changes: object) -> EnsemblePlan:
    content: dict[str, object] = {
        "inputs": ["image"],
        "outputs": ["labels", "scores"],
        "steps": [
            {"combine": "mean", "inputs": ["p", "q"], "output": "m"},
            {"model": "one", "outputs": {"probabilities": "p"}},
            {"model": "one", "outputs": {"probabilities": "q"}},
            {"top_k": 3, "input": "m", "labels_of": "one"},
        ],
    }
    config = EnsembleConfig.model_validate(content | changes)
    return plan_ensemble("e", config, SIGNATURES, LABELS)


def test_steps_are_put_in_an_order_that_can_run() -> None:
    made = plan()

    assert [sorted(step.gives) for step in made.steps] == [
        ["p"],
        ["q"],
        ["m"],
        ["labels", "scores"],
    ]


def test_the_signature_is_that_of_the_graph() -> None:
    signature = plan().signature

    assert signature.inputs == (TensorSpec(name="image", datatype="BYTES", shape=(-1,)),)
    assert signature.outputs == (
        TensorSpec(name="labels", datatype="BYTES", shape=(-1, 3)),
        TensorSpec(name="scores", datatype="FP32", shape=(-1, 3)),
    )


def test_members_that_need_only_the_request_can_run_side_by_side() -> None:
    made = plan()

    assert made.runnable(frozenset({"image"}), frozenset()) == (0, 1)
    assert made.runnable(frozenset({"image", "p"}), frozenset({0, 1})) == ()
    assert made.runnable(frozenset({"image", "p", "q"}), frozenset({0, 1})) == (2,)


def test_names_can_be_mapped_into_a_model() -> None:
    made = plan(
        outputs=["s"],
        steps=[
            {"model": "one", "outputs": {"probabilities": "p"}},
            {"model": "head", "inputs": {"vector": "p"}, "outputs": {"score": "s"}},
        ],
    )

    assert made.models == ("one", "head")
    assert made.signature.outputs == (TensorSpec(name="s", datatype="FP32", shape=(-1,)),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": ["nothing"]}, r"no step gives 'nothing'; allowed: labels, m, p, q, scores"),
        (
            {"steps": [{"model": "one", "outputs": {"wrong": "x"}}]},
            r"one has no output 'wrong'; allowed: labels, probabilities",
        ),
        (
            {"steps": [{"model": "one", "inputs": {"no": "image"}, "outputs": {"labels": "x"}}]},
            r"one has no input 'no'; allowed: image",
        ),
        (
            {
                "steps": [
                    {"model": "one", "outputs": {"probabilities": "p"}},
                    {"combine": "mean", "inputs": ["p", "z"], "output": "z"},
                ]
            },
            r"steps.1: nothing gives z",
        ),
        (
            {
                "steps": [
                    {"model": "one", "outputs": {"labels": "x"}},
                    {"model": "one", "outputs": {"labels": "x"}},
                ]
            },
            r"steps.1: value 'x' is given twice",
        ),
        ({"inputs": ["image", "other"]}, r"no step reads 'other'"),
        (
            {
                "steps": [
                    {"model": "one", "outputs": {"probabilities": "p"}},
                    {"top_k": 3, "input": "p", "labels_of": "head"},
                ]
            },
            r"head has no labels",
        ),
    ],
)
def test_a_graph_that_cannot_work_names_the_step_and_the_value(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(**changes)
