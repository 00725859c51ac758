"""A probability -> one of two labels."""

from __future__ import annotations

import numpy as np

from cluster.config.model_card import BinaryPostprocess
from cluster.tensors import Array, bytes_array


def decide(probabilities: Array, spec: BinaryPostprocess) -> tuple[Array, Array]:
    """The label of each row and the score of the positive one; at the threshold it is positive.

    Shapes: `[batch, 1]` or `[batch]` -> BYTES `[batch]`, FP32 `[batch]`.
    """
    scores = np.asarray(probabilities, dtype=np.float32).reshape(len(probabilities), -1)[:, 0]
    negative, positive = (label.encode() for label in spec.labels)
    labels = [positive if score >= spec.threshold else negative for score in scores.tolist()]
    return bytes_array(labels, (len(labels),)), np.ascontiguousarray(scores)
