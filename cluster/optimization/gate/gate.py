"""Whether an optimised model may stand in for the original: the accuracy gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.errors import ConfigError
from cluster.optimization.gate.agreement import Agreement, Outputs, compare
from cluster.optimization.gate.intervals import Interval, paired_difference, wilson
from cluster.tensors import Array

NOT_VALIDATED = "not validated"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """What may be lost. `max_accuracy_loss_points` needs labels; the others any inputs.

    The cosine limits are those that int8 with per-channel weights keeps and per-tensor weights
    break (our measurement on MiniLM over 8,572 rated sentences).
    """

    max_accuracy_loss_points: float = 0.5
    min_top1_agreement: float = 0.98
    min_cosine: float = 0.985
    min_cosine_of_any: float = 0.9

    def __post_init__(self) -> None:
        for name in ("min_top1_agreement", "min_cosine", "min_cosine_of_any"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(
                    f"{name} is {value}; allowed: 0 to 1", key=name, value=value, allowed="0 to 1"
                )
        if not self.max_accuracy_loss_points >= 0:
            raise ConfigError(
                f"max_accuracy_loss_points is {self.max_accuracy_loss_points}; allowed: 0 and more",
                key="max_accuracy_loss_points",
                value=self.max_accuracy_loss_points,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1 on labelled items. `change_points`: optimised less original, paired, in points."""

    num_items: int
    original: Interval
    optimised: Interval
    change_points: Interval

    def as_dict(self) -> dict[str, object]:
        return {
            "num_items": self.num_items,
            "original": self.original.as_dict(),
            "optimised": self.optimised.as_dict(),
            "change_points": self.change_points.as_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`passed` says no limit was broken; `is_validated` that real inputs, not random ones, said so.

    `is_shown`: labels exclude a loss above the limit at 95 %. `reasons`: one sentence each.
    """

    passed: bool
    is_validated: bool
    is_shown: bool
    reasons: tuple[str, ...]
    agreement: Agreement
    accuracy: Accuracy | None

    @property
    def label(self) -> str:
        """Short enough for a column and a model card."""
        if not self.passed:
            return "failed the gate"
        if not self.is_validated:
            return NOT_VALIDATED
        if self.accuracy is not None:
            change = self.accuracy.change_points
            return (
                f"accuracy {change.value:+.2f} points [{change.low:+.2f}, {change.high:+.2f}], "
                f"n={self.accuracy.num_items}"
            )
        if self.agreement.top1 is not None:
            top1 = self.agreement.top1
            return (
                f"top-1 agreement {top1.value:.1%} [{top1.low:.1%}, {top1.high:.1%}], "
                f"n={self.agreement.num_items}"
            )
        cosine = self.agreement.cosine
        return (
            f"cosine {cosine.value:.4f} [{cosine.low:.4f}, {cosine.high:.4f}], "
            f"n={self.agreement.num_items}"
        )

    def as_dict(self) -> dict[str, object]:
        return {
            "passed": self.passed,
            "validated": self.is_validated,
            "shown": self.is_shown,
            "reasons": list(self.reasons),
            "agreement": self.agreement.as_dict(),
            "accuracy": self.accuracy.as_dict() if self.accuracy else None,
        }


def judge(
    original: Sequence[Outputs],
    optimised: Sequence[Outputs],
    *,
    labels: Sequence[int] | None,
    ranks_classes: bool,
    is_real_data: bool,
    limits: GateLimits,
) -> Verdict:
    """Labels decide where they are enough to exclude the loss; otherwise agreement must hold too.

    Labels that the original itself meets no better than a guess would say nothing: whoever is
    always wrong loses nothing. They are left aside. On random inputs only the cosine is judged:
    there are no best classes to keep in noise.
    Raises: ConfigError for labels that are no classes of the model.
    """
    check_labels(labels, original, ranks_classes=ranks_classes)
    agreement = compare(original, optimised, ranks_classes=ranks_classes)
    accuracy = None
    broken: list[str] = []
    said: list[str] = []
    is_shown = False
    if labels is not None and ranks_classes:
        accuracy = measure_accuracy(original, optimised, labels)
        num_classes = _scores(original[0]).shape[-1]
        if accuracy.original.low <= 1 / num_classes:
            share = accuracy.original
            said.append(
                f"labels left aside: the original is right on {share.value:.1%} of {len(labels)} "
                f"items [{share.low:.1%}, {share.high:.1%}], which a guess among {num_classes} "
                "classes may be as well; are they the classes of this model, counted from 0?"
            )
            accuracy = None
    elif labels is not None:
        said.append("labels left aside: the first output holds no scores of classes")
    if accuracy is not None:
        change, limit = accuracy.change_points, limits.max_accuracy_loss_points
        is_shown = -change.low <= limit
        if -change.value > limit:
            broken.append(
                f"accuracy fell by {-change.value:.2f} points, at most {limit:g} are allowed"
            )
        elif is_shown:
            said.append(f"a loss above {limit:g} points is excluded at 95 %")
        else:
            said.append(
                f"{accuracy.num_items} labelled items exclude only a loss above "
                f"{-change.low:.1f} points, so agreement was judged as well"
            )
    if not is_shown:
        broken += _broken_agreement(agreement, limits, is_real_data=is_real_data)
    if not is_real_data:
        how = "are close" if not broken else "differ"
        said.append(f"random inputs: the answers {how}, accuracy is unknown")
    return Verdict(
        passed=not broken,
        is_validated=is_real_data,
        is_shown=is_shown and not broken,
        reasons=tuple(broken + said),
        agreement=agreement,
        accuracy=accuracy,
    )


def check_labels(
    labels: Sequence[int] | None, answers: Sequence[Outputs], *, ranks_classes: bool
) -> None:
    """Raises: ConfigError for a label that is no class of the model that gave these answers."""
    if labels is None or not ranks_classes or not answers:
        return
    num_classes = _scores(answers[0]).shape[-1]
    for number, label in enumerate(labels):
        if not 0 <= label < num_classes:
            raise ConfigError(
                f"label {label} of item {number}: the model tells {num_classes} classes apart; "
                f"allowed: 0 to {num_classes - 1}",
                key="labels",
                value=label,
                allowed=f"0 to {num_classes - 1}",
            )


def measure_accuracy(
    original: Sequence[Outputs], optimised: Sequence[Outputs], labels: Sequence[int]
) -> Accuracy:
    """Both on the same items, so that the difference is sharper than either."""
    before = [
        _best_class(outputs) == label for outputs, label in zip(original, labels, strict=True)
    ]
    after = [
        _best_class(outputs) == label for outputs, label in zip(optimised, labels, strict=True)
    ]
    pairs = list(zip(before, after, strict=True))
    change = paired_difference(
        gained=pairs.count((False, True)), lost=pairs.count((True, False)), num=len(pairs)
    )
    return Accuracy(
        num_items=len(pairs),
        original=wilson(sum(before), len(pairs)),
        optimised=wilson(sum(after), len(pairs)),
        change_points=Interval(
            value=100 * change.value, low=100 * change.low, high=100 * change.high
        ),
    )


def _best_class(outputs: Outputs) -> int:
    return int(np.argmax(_scores(outputs)[0]))


def _scores(outputs: Outputs) -> Array:
    """Of the first output, a row a decision."""
    scores = next(iter(outputs.values()))
    rows: Array = scores.reshape(-1, scores.shape[-1])
    return rows


def _broken_agreement(agreement: Agreement, limits: GateLimits, *, is_real_data: bool) -> list[str]:
    broken: list[str] = []
    if agreement.cosine.value < limits.min_cosine:
        broken.append(
            f"mean cosine to the original is {agreement.cosine.value:.4f}, at least "
            f"{limits.min_cosine:g} is asked for"
        )
    if not is_real_data:
        return broken
    if agreement.cosine_min < limits.min_cosine_of_any:
        broken.append(
            f"one item has cosine {agreement.cosine_min:.4f} to the original, at least "
            f"{limits.min_cosine_of_any:g} is asked for"
        )
    if agreement.top1 is not None and agreement.top1.value < limits.min_top1_agreement:
        broken.append(
            f"top-1 agrees on {agreement.top1.value:.1%} of the decisions, at least "
            f"{limits.min_top1_agreement:.1%} is asked for"
        )
    return broken
