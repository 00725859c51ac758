from __future__ import annotations

import pytest

from cluster.config.ensemble import EnsembleConfig
from cluster.errors import ConfigError
from cluster.routing.ensembles.plan import EnsemblePlan, plan_ensemble
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
    "wide": Signature(
        inputs=(TensorSpec(name="vector", datatype="FP32", shape=(-1, 8)),),
        outputs=(TensorSpec(name="score", datatype="FP32", shape=(-1, 2)),),
    ),
    "pair": Signature(
        inputs=(
            TensorSpec(name="a", datatype="FP32", shape=(-1, 9)),
            TensorSpec(name="b", datatype="FP32", shape=(-1, 9)),
        ),
        outputs=(TensorSpec(name="y", datatype="INT64", shape=(-1,)),),
    ),
    "talk": Signature(
        inputs=(TensorSpec(name="vector", datatype="FP32", shape=(-1, 9)),),
        outputs=(TensorSpec(name="word", datatype="BYTES", shape=(-1,)),),
    ),
}
SIGNATURES["tell"] = SIGNATURES["talk"]
LABELS = {"one": tuple(b"abcdefghi"[i : i + 1] for i in range(9))}
PROBABILITIES = {"model": "one", "outputs": {"probabilities": "p"}}
FROM_P = {"inputs": {"vector": "p"}}


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
    return plan_ensemble("e", config, SIGNATURES, LABELS, frozenset({"talk"}), frozenset({"tell"}))


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
        (
            {"outputs": ["nothing"]},
            r"no step gives 'nothing'; allowed: labels, m, p, q, scores",
        ),
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
            r"steps.1: a cycle: step 1 needs z of step 1$",
        ),
        (  # the first step only waits for the one with the mistake
            {
                "steps": [
                    {"combine": "mean", "inputs": ["p", "q"], "output": "m"},
                    {"model": "one", "outputs": {"probabilities": "p"}},
                    {"combine": "mean", "inputs": ["p", "typo"], "output": "q"},
                ]
            },
            r"steps.2: nothing gives typo; allowed: image .*, p ",
        ),
        (  # and here for a cycle that it is no part of
            {
                "steps": [
                    {"combine": "mean", "inputs": ["p", "c"], "output": "m"},
                    {"model": "one", "outputs": {"probabilities": "p"}},
                    {"combine": "mean", "inputs": ["p", "d"], "output": "c"},
                    {"combine": "mean", "inputs": ["p", "c"], "output": "d"},
                ]
            },
            r"steps.2: a cycle: step 2 needs d of step 3, step 3 needs c of step 2$",
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
            {"steps": [PROBABILITIES, {"model": "wide", **FROM_P, "outputs": {"score": "s"}}]},
            r"steps.1.inputs: wide takes 'vector' as FP32 \[-1,8\], and value 'p' is FP32 \[-1,9\]",
        ),
        (
            {
                "steps": [
                    {"model": "one", "outputs": {"labels": "p"}},
                    {"model": "head", **FROM_P, "outputs": {"score": "s"}},
                ]
            },
            r"steps.1.inputs: head takes 'vector' as FP32 .*, and value 'p' is BYTES \[-1,5\]",
        ),
        (
            {
                "steps": [
                    PROBABILITIES,
                    {"split": {"head": 1, "wide": 1}, **FROM_P, "outputs": {"score": "s"}},
                ]
            },
            r"steps.1.inputs: wide takes",
        ),
        (
            {
                "steps": [
                    PROBABILITIES,
                    {"model": "head", **FROM_P, "fallback": "talk", "outputs": {"score": "s"}},
                ]
            },
            r"steps.1.outputs: talk has no output 'score'; allowed: word",
        ),
        (
            {
                "steps": [
                    PROBABILITIES,
                    {
                        "switch": {"value": "p"},
                        "cases": [{"at_least": 1, "model": "head"}],
                        "default": "head",
                        **FROM_P,
                        "outputs": {"score": "s"},
                    },
                ]
            },
            r"steps.1.switch.value: a switch looks at one element a row, and p .* has more",
        ),
        (
            {
                "steps": [
                    PROBABILITIES,
                    {"combine": "code", "model": "pair", "inputs": ["p"], "output": "y"},
                ]
            },
            r"steps.1.inputs: pair takes 2 inputs, got 1",
        ),
        (
            {
                "steps": [
                    {"model": "one", "outputs": {"labels": "p"}},
                    {"combine": "mean", "inputs": ["p"], "output": "y"},
                ]
            },
            r"steps.1.inputs: mean cannot combine p \(BYTES \[-1,5\]\)",
        ),
        (
            {
                "steps": [
                    {"model": "one", "outputs": {"labels": "p"}},
                    {"top_k": 3, "input": "p", "labels_of": "one"},
                ]
            },
            r"steps.1.input: top_k ranks floats",
        ),
        (
            {
                "outputs": ["p"],
                "steps": [PROBABILITIES, {"model": "talk", **FROM_P, "outputs": {"word": "w"}}],
            },
            r"steps.1: talk is decoupled, so it must be the last step and give all outputs",
        ),
        (
            {
                "outputs": ["w"],
                "steps": [
                    PROBABILITIES,
                    {"split": {"talk": 1}, **FROM_P, "outputs": {"word": "w"}},
                ],
            },
            r"steps.1: talk is decoupled, and only a model step without a fallback, timeout_ms",
        ),
        *(
            (
                {
                    "outputs": ["w"],
                    "steps": [
                        PROBABILITIES,
                        {"model": "talk", **FROM_P, "outputs": {"word": "w"}, **rule},
                    ],
                },
                r"steps.1: talk is decoupled, and only a model step without",
            )
            for rule in ({"timeout_ms": 5}, {"hedge_after_ms": 5}, {"fallback": "talk"})
        ),
        (
            {
                "outputs": ["w"],
                "steps": [PROBABILITIES, {"model": "tell", **FROM_P, "outputs": {"word": "w"}}],
            },
            r"steps.1: tell streams, and of what streams only a variant can be a step",
        ),
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


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"combine": "mean", "weights": [1], "inputs": ["p", "q"]}, "1 weights for 2 inputs"),
        ({"combine": "mean", "weights": [1, 0], "inputs": ["p", "q"]}, "weights must be above 0"),
        ({"combine": "mean", "quorum": 3, "inputs": ["p", "q"]}, "quorum is 3, of 2 inputs"),
        ({"combine": "mean", "wait_ms": 3, "inputs": ["p", "q"]}, "wait_ms needs quorum"),
        ({"combine": "mean", "inputs": ["p", "p"]}, "different values"),
        ({"combine": "mean", "model": "pair", "inputs": ["p", "q"]}, "mean excludes `model`"),
        ({"combine": "stacking", "inputs": ["p", "q"]}, "stacking needs `model`"),
        ({"combine": "mean", "given": "logits", "inputs": ["p", "q"]}, "given: logits needs"),
        ({"combine": "guess", "inputs": ["p", "q"]}, "'mean', 'logit_mean', 'soft_vote'"),
    ],
)
def test_a_combiner_whose_keys_do_not_fit_is_refused(step: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(steps=[PROBABILITIES, {**step, "output": "m"}])


def test_a_model_can_combine_and_gives_what_its_signature_says() -> None:
    steps = [
        PROBABILITIES,
        {"model": "one", "outputs": {"probabilities": "q"}},
        {"combine": "stacking", "model": "pair", "inputs": ["p", "q"], "output": "y", "quorum": 1},
    ]

    made = plan(outputs=["y"], steps=steps)

    assert made.models == ("one", "pair")
    assert made.signature.outputs == (TensorSpec(name="y", datatype="INT64", shape=(-1,)),)
    assert [step.enough for step in made.steps] == [1, 1, 1]


def test_the_last_step_may_stream() -> None:
    steps = [PROBABILITIES, {"model": "talk", **FROM_P, "outputs": {"word": "w"}}]

    assert plan(outputs=["w"], steps=steps).stream == 1
    assert plan().stream is None


def test_a_client_value_that_only_a_switch_reads_is_of_the_kind_of_its_first_case() -> None:
    step = {
        "switch": {"value": "tier"},
        "cases": [{"equals": "gold", "model": "one"}],
        "default": "one",
        "outputs": {"labels": "x"},
    }

    made = plan(inputs=["image", "tier"], outputs=["x"], steps=[step])

    assert made.signature.inputs[1] == TensorSpec(name="tier", datatype="BYTES", shape=(-1,))
