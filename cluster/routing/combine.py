"""What an ensemble computes itself, between its members' answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.errors import EngineFailed
from cluster.tensors import Array, bytes_array


def mean(values: Sequence[Array], weights: Sequence[float] = ()) -> Array:
    """Weighted mean of float arrays of one shape, accumulated in float64, returned as float32.

    Raises: EngineFailed when members disagree on the shape (they answer the same rows).
    """
    shapes = {value.shape for value in values}
    if len(shapes) != 1:
        raise EngineFailed(f"ensemble members answered with different shapes: {sorted(shapes)}")
    share = np.asarray(weights or [1.0] * len(values), dtype=np.float64)
    total = sum(
        weight * value.astype(np.float64) for weight, value in zip(share, values, strict=True)
    )
    result: Array = (total / share.sum()).astype(np.float32)
    return result


def top_k(probabilities: Array, labels: Sequence[bytes], k: int) -> tuple[Array, Array]:
    """The k best classes of each row, best first; of equals, the lower index first.

    Shapes: `[batch, classes]` -> labels BYTES `[batch, k]`, scores FP32 `[batch, k]`.
    """
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
    scores = np.take_along_axis(probabilities, order, axis=-1).astype(np.float32)
    names = [labels[index] if index < len(labels) else b"" for index in order.ravel().tolist()]
    return bytes_array(names, order.shape), scores
