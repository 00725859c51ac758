"""Token vectors -> one vector a text."""

from __future__ import annotations

import numpy as np

from cluster.tensors import Array


def mean_pool(vectors: Array, mask: Array, *, is_normalised: bool) -> Array:
    """The mean of the tokens that count, of length 1 when asked for; of none, the zero vector.

    Shapes: `[batch, tokens, hidden]` and `[batch, tokens]` -> FP32 `[batch, hidden]`.
    """
    weights = np.asarray(mask, dtype=np.float32)
    # einsum and not matmul: it stays in this thread, whatever BLAS would like.
    sums: Array = np.einsum("bth,bt->bh", np.asarray(vectors, dtype=np.float32), weights)
    pooled: Array = sums / np.maximum(weights.sum(axis=1, keepdims=True), 1.0)
    if is_normalised:
        lengths = np.linalg.norm(pooled, axis=1, keepdims=True)
        pooled /= np.maximum(lengths, 1e-12)
    return pooled
