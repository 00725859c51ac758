"""The accuracy gate on answers whose differences are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cluster.errors import ConfigError
from cluster.optimization.gate.agreement import Outputs, compare
from cluster.optimization.gate.gate import GateLimits, Verdict, judge


def answers(num: int, *, wrong: int = 0, noise: float = 0.0) -> list[Outputs]:
    """Class `index % 10` for item `index`; the first `wrong` items say the next class instead."""
    made: list[Outputs] = []
    for index in range(num):
        scores = np.full((1, 10), noise * (index % 3), np.float32)
        scores[0, (index + (index < wrong)) % 10] = 10
        made.append({"logits": scores})
    return made


def labels(num: int) -> list[int]:
    return [index % 10 for index in range(num)]


def verdict(num: int, wrong: int, *, labelled: bool = False, real: bool = True) -> Verdict:
    return judge(
        answers(num),
        answers(num, wrong=wrong),
        labels=labels(num) if labelled else None,
        ranks_classes=True,
        is_real_data=real,
        limits=GateLimits(),
    )


def test_the_same_answers_pass_and_are_validated() -> None:
    found = verdict(100, 0)

    assert (found.passed, found.is_validated) == (True, True)
    assert found.agreement.top1 is not None
    assert found.agreement.top1.value == 1
    assert found.agreement.max_abs == 0
    assert found.agreement.kl == pytest.approx(0, abs=1e-12)


def test_answers_that_change_their_class_too_often_fail() -> None:
    found = verdict(100, 5)

    assert not found.passed
    assert "top-1 agrees on 95.0%" in " ".join(found.reasons)
    assert found.label == "failed the gate"


def test_a_loss_of_accuracy_beyond_the_limit_fails_with_labels() -> None:
    found = verdict(1000, 10, labelled=True)

    assert not found.passed
    assert found.reasons[0].startswith("accuracy fell by 1.00 points")
    assert found.accuracy is not None
    assert found.accuracy.original.value == 1
    assert found.accuracy.optimised.value == 0.99


def test_enough_labels_show_that_nothing_was_lost() -> None:
    found = verdict(5000, 3, labelled=True)

    assert (found.passed, found.is_shown) == (True, True)
    assert found.label.startswith("accuracy -0.06 points [")


def test_twenty_labels_show_nothing_so_agreement_is_judged_as_well() -> None:
    found = verdict(20, 0, labelled=True)

    assert (found.passed, found.is_shown) == (True, False)
    assert "20 labelled items exclude only a loss above" in " ".join(found.reasons)


def test_labels_that_the_original_itself_does_not_meet_show_nothing() -> None:
    others = [(index + 5) % 10 for index in range(1000)]

    found = judge(
        answers(1000),
        answers(1000, wrong=900),
        labels=others,
        ranks_classes=True,
        is_real_data=True,
        limits=GateLimits(),
    )

    assert (found.passed, found.is_shown, found.accuracy) == (False, False, None)
    said = " ".join(found.reasons)
    assert "labels left aside: the original is right on 0.0% of 1000 items" in said
    assert "top-1 agrees on 10.0%" in said


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_that_is_no_class_of_the_model_is_refused(label: int) -> None:
    with pytest.raises(ConfigError, match=rf"label {label} of item 3.*allowed: 0 to 9"):
        judge(
            answers(4),
            answers(4),
            labels=[0, 1, 2, label],
            ranks_classes=True,
            is_real_data=True,
            limits=GateLimits(),
        )


def test_labels_of_a_model_without_classes_are_said_to_be_left_aside() -> None:
    found = judge(
        answers(4),
        answers(4),
        labels=[0, 1, 2, 3],
        ranks_classes=False,
        is_real_data=True,
        limits=GateLimits(),
    )

    assert "labels left aside: the first output holds no scores of classes" in found.reasons


def test_random_inputs_never_validate() -> None:
    found = verdict(100, 0, real=False)

    assert (found.passed, found.is_validated) == (True, False)
    assert found.label == "not validated"


def test_random_inputs_still_catch_a_broken_model() -> None:
    found = verdict(100, 100, real=False)

    assert not found.passed
    assert "mean cosine" in found.reasons[0]
    assert found.reasons[-1] == "random inputs: the answers differ, accuracy is unknown"


def test_an_answer_that_is_no_number_is_no_agreement() -> None:
    broken = answers(10)
    broken[3] = {"logits": np.full((1, 10), np.nan, np.float32)}

    found = compare(answers(10), broken, ranks_classes=True)

    assert found.cosine_min == 0
    assert found.max_abs == np.inf


def test_what_json_cannot_hold_is_null_there() -> None:
    right = [{"y": np.array([[1.0, 2.0]])}]
    wrong = [{"y": np.array([[1.0, -np.inf]])}]

    found = compare(right, wrong, ranks_classes=True)

    assert found.max_abs == np.inf
    said = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert said["max_abs"] is None


def test_an_output_of_another_shape_or_name_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"'logits': shape \[1, 9\]"):
        compare(answers(1), [{"logits": np.zeros((1, 9))}], ranks_classes=True)
    with pytest.raises(ConfigError, match="no output 'logits'"):
        compare(answers(1), [{"scores": np.zeros((1, 10))}], ranks_classes=True)


def test_vectors_that_rank_nothing_are_compared_by_cosine_alone() -> None:
    random = np.random.default_rng(0)
    vectors = [{"embedding": random.normal(size=(1, 8))} for _ in range(20)]
    turned = [{"embedding": -each["embedding"]} for each in vectors]

    found = compare(vectors, turned, ranks_classes=False)

    assert found.top1 is None
    assert found.cosine.value == pytest.approx(-1)


@pytest.mark.parametrize(
    "limits", [{"min_cosine": 2.0}, {"min_top1_agreement": -1.0}, {"max_accuracy_loss_points": -1}]
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(limits))):
        GateLimits(**limits)
