"""How far the answers of an optimised model are from those of the original."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.errors import ConfigError
from cluster.optimization.gate.intervals import Interval, bootstrap, wilson
from cluster.tensors import Array

Outputs = dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Over `num_items` items.

    `top1`: share with the same best class (None when the output ranks no classes); `cosine`: mean
    over items with its interval; `kl`: mean Kullback-Leibler divergence of the optimised class
    probabilities from the original's, in nats; `max_abs`: greatest difference of any number
    (infinite where one answer is no number).
    """

    num_items: int
    top1: Interval | None
    cosine: Interval
    cosine_min: float
    kl: float | None
    max_abs: float

    def as_dict(self) -> dict[str, object]:
        return {
            "num_items": self.num_items,
            "top1": self.top1.as_dict() if self.top1 else None,
            "cosine": self.cosine.as_dict(),
            "cosine_min": self.cosine_min,
            # JSON has no infinity and no NaN.
            "kl": _number(self.kl),
            "max_abs": _number(self.max_abs),
        }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def compare(
    original: Sequence[Outputs], optimised: Sequence[Outputs], *, ranks_classes: bool
) -> Agreement:
    """Item by item, each with the same inputs; every output counts for the cosine and the maximum.

    `ranks_classes`: the last axis of the first output holds class scores; each vector along it is
    a decision of its own (a token of a language model), an item's decisions count one by one.
    Raises: ConfigError when an output's shape changed.
    """
    if not original or len(original) != len(optimised):
        raise ConfigError(f"{len(optimised)} answers to compare with {len(original)}", key="data")
    cosines: list[float] = []
    kls: list[float] = []
    same = decisions = 0
    max_abs = 0.0
    for expected, found in zip(original, optimised, strict=True):
        pairs = [_pair(name, expected, found) for name in expected]
        cosines.append(_cosine(pairs))
        max_abs = max(max_abs, *(_max_abs(a, b) for a, b in pairs))
        if ranks_classes:
            a, b = (side.reshape(-1, side.shape[-1]) for side in pairs[0])
            same += int((a.argmax(-1) == b.argmax(-1)).sum())
            decisions += len(a)
            kls.append(_kl(a, b))
    return Agreement(
        num_items=len(original),
        top1=wilson(same, decisions) if ranks_classes else None,
        cosine=bootstrap(cosines),
        cosine_min=min(cosines),
        kl=float(np.mean(kls)) if ranks_classes else None,
        max_abs=max_abs,
    )


def _pair(name: str, expected: Outputs, found: Outputs) -> tuple[Array, Array]:
    if name not in found:
        raise ConfigError(f"the optimised model has no output {name!r}", key=name)
    a, b = expected[name], found[name]
    if a.shape != b.shape:
        raise ConfigError(
            f"output {name!r}: shape {list(b.shape)} where the original gives {list(a.shape)}",
            key=name,
        )
    return a.astype(np.float64), b.astype(np.float64)


def _cosine(pairs: list[tuple[Array, Array]]) -> float:
    a = np.concatenate([side.ravel() for side, _ in pairs])
    b = np.concatenate([side.ravel() for _, side in pairs])
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        # The original may answer with infinities (a mask); then only equality is agreement.
        return 1.0 if np.array_equal(a, b, equal_nan=True) else 0.0
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0.0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(a @ b) / norms


def _max_abs(a: Array, b: Array) -> float:
    difference = np.abs(a - b)
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    difference = np.where(equal, 0.0, difference)
    return float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max(initial=0.0))


def _kl(a: Array, b: Array) -> float:
    log_p, log_q = _log_probabilities(a), _log_probabilities(b)
    return float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean())


def _log_probabilities(scores: Array) -> Array:
    """Scores that are probabilities already are taken as they are, others through softmax."""
    if (scores >= 0).all() and np.allclose(scores.sum(-1), 1, atol=1e-3):
        logs: Array = np.log(np.clip(scores, 1e-12, None))
        return logs
    shifted = scores - scores.max(-1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
