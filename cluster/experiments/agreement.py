"""How a mirrored variant's answer compares with the one that was given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.experiments.counts import Agreement
from cluster.tensors import Array, Tensor

_LARGEST = float(np.finfo(np.float64).max)


def compare(given: Sequence[Tensor], mirrored: Sequence[Tensor]) -> Agreement:
    """Top-1 of rankings (the first label of BYTES, else the largest score) a row, cosine and the
    largest difference of numbers, over all outputs that both have in the same shape and kind."""
    found = Agreement(count=1)
    others = {tensor.name: tensor for tensor in mirrored}
    num_compared = 0
    for tensor in given:
        other = others.get(tensor.name)
        if other is None or other.array.shape != tensor.array.shape:
            continue
        if (tensor.datatype == "BYTES") != (other.datatype == "BYTES"):
            continue
        num_compared += 1
        if tensor.datatype == "BYTES":
            found = found + _ranked(_first(tensor), _first(other))
        else:
            found = found + _numbers(tensor, other)
    return found if num_compared else Agreement(count=1, num_unlike=1)


def _numbers(tensor: Tensor, other: Tensor) -> Agreement:
    a = np.asarray(tensor.array, dtype=np.float64)
    b = np.asarray(other.array, dtype=np.float64)
    if a.size == 0:
        return Agreement()
    found = Agreement(max_abs_difference=_largest_difference(a, b))
    # Masked scores are -inf: directions are compared where both have one.
    both = np.isfinite(a) & np.isfinite(b)
    c, d = np.where(both, a, 0.0), np.where(both, b, 0.0)
    largest = max(np.abs(c).max(), np.abs(d).max())
    if largest > 0:
        c, d = c / largest, d / largest
        lengths = float(np.linalg.norm(c) * np.linalg.norm(d))
        if lengths > 0:
            found = found + Agreement(cosine=float((c * d).sum()) / lengths, num_cosine=1)
    if a.ndim >= 2 and a.shape[-1] > 1:
        found = found + _ranked(a.argmax(axis=-1).ravel(), b.argmax(axis=-1).ravel())
    return found


def _largest_difference(a: Array, b: Array) -> float:
    """Never infinite or undefined, which what is kept of an experiment could not say: equal
    infinities do not differ, and one beside anything else differs by the largest number."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(a - b)
    apart[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    return float(np.nan_to_num(apart, nan=_LARGEST, posinf=_LARGEST).max())


def _ranked(a: Array, b: Array) -> Agreement:
    return Agreement(same_top1=int((a == b).sum()), num_ranked=len(a))


def _first(tensor: Tensor) -> Array:
    array = tensor.array
    return array.reshape(-1, array.shape[-1])[:, 0] if array.ndim >= 2 else array.ravel()
