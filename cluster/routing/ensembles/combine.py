"""What an ensemble computes itself, between its members' answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from cluster.config.ensembles.combining import CombineStep
from cluster.errors import EngineFailed
from cluster.tensors import Array, bytes_array

SMALLEST = 1e-30
"""Probabilities below it count as this much where a logarithm is taken."""


def combine(step: CombineStep, values: Mapping[str, Array]) -> Array:
    """The value of a combine step that needs no model, of those of its inputs that are there.

    Computed in float64 and returned as float32 (votes of labels: as the labels are).
    Raises: EngineFailed when members disagree on the shape (they answer the same rows).
    """
    names = [name for name in step.inputs if name in values]
    arrays = [values[name] for name in names]
    every = dict(zip(step.inputs, step.weights or [1.0] * len(step.inputs), strict=True))
    weights = [every[name] for name in names]
    match step.combine:
        case "mean":
            return mean(arrays, weights)
        case "soft_vote":
            given = arrays
            if step.given == "logits":
                given = [probabilities(array) for array in arrays]
            return mean(given, weights)
        case "logit_mean":
            given = arrays
            if step.given == "probabilities":
                given = [logits(array) for array in arrays]
            return probabilities(_mean(given, weights)).astype(np.float32)
        case "hard_vote" if arrays[0].dtype.kind in "OiubSU":
            return label_vote(arrays, weights)
        case "hard_vote":
            return hard_vote(arrays, weights)
        case "stacking" | "code":
            raise AssertionError(f"{step.combine} is computed by a model")


def mean(values: Sequence[Array], weights: Sequence[float] = ()) -> Array:
    """Weighted mean of float arrays of one shape, accumulated in float64, returned as float32.

    Raises: EngineFailed when members disagree on the shape (they answer the same rows).
    """
    return _mean(values, weights).astype(np.float32)


def probabilities(logits: Array) -> Array:
    """Softmax over the last axis; of one number a row (`[batch]`) its logistic function.

    Shapes: as given; float64.
    """
    wide = logits.astype(np.float64)
    if wide.ndim == 1:
        positive: Array = 1.0 / (1.0 + np.exp(-wide))
        return positive
    exponents = np.exp(wide - wide.max(axis=-1, keepdims=True))
    found: Array = exponents / exponents.sum(axis=-1, keepdims=True)
    return found


def logits(probabilities: Array) -> Array:
    """Logarithms of class probabilities, from which `probabilities` makes them again; of one number
    a row its log-odds. Shapes: as given; float64."""
    wide = np.clip(probabilities.astype(np.float64), SMALLEST, 1.0)
    if wide.ndim == 1:
        odds: Array = np.log(wide) - np.log(np.clip(1.0 - wide, SMALLEST, 1.0))
        return odds
    found: Array = np.log(wide)
    return found


def hard_vote(values: Sequence[Array], weights: Sequence[float]) -> Array:
    """Each class's share of the votes; a member votes for its best class, of equals the first.

    Shapes: `[…, classes]` -> the same; `[batch]` (one probability a row) -> the share of members
    that say at least 0.5.
    """
    _check_shapes(values)
    votes = []
    for value in values:
        if value.ndim == 1:
            votes.append((value >= 0.5).astype(np.float64))
        else:
            classes = np.arange(value.shape[-1])
            best = np.argmax(value, axis=-1)[..., None]
            votes.append((classes == best).astype(np.float64))
    return mean(votes, weights)


def label_vote(values: Sequence[Array], weights: Sequence[float]) -> Array:
    """For each element the label with most votes; of equals that of the earlier member."""
    _check_shapes(values)
    chosen = []
    for labels in zip(*(value.ravel().tolist() for value in values), strict=True):
        votes: defaultdict[object, float] = defaultdict(float)
        for label, weight in zip(labels, weights, strict=True):
            votes[label] += weight
        chosen.append(max(votes, key=votes.__getitem__))
    if values[0].dtype.kind == "O":
        return bytes_array(chosen, values[0].shape)  # type: ignore[arg-type]  # elements of BYTES
    return np.array(chosen, dtype=values[0].dtype).reshape(values[0].shape)


def top_k(probabilities: Array, labels: Sequence[bytes], k: int) -> tuple[Array, Array]:
    """The k best classes of each row, best first; of equals, the lower index first.

    Shapes: `[batch, classes]` -> labels BYTES `[batch, k]`, scores FP32 `[batch, k]`.
    """
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
    scores = np.take_along_axis(probabilities, order, axis=-1).astype(np.float32)
    names = [labels[index] if index < len(labels) else b"" for index in order.ravel().tolist()]
    return bytes_array(names, order.shape), scores


def _mean(values: Sequence[Array], weights: Sequence[float]) -> Array:
    _check_shapes(values)
    share = np.asarray(weights or [1.0] * len(values), dtype=np.float64)
    total = sum(
        weight * value.astype(np.float64) for weight, value in zip(share, values, strict=True)
    )
    found: Array = total / share.sum()
    return found


def _check_shapes(values: Sequence[Array]) -> None:
    shapes = {value.shape for value in values}
    if len(shapes) != 1:
        raise EngineFailed(f"ensemble members answered with different shapes: {sorted(shapes)}")
