"""Logits -> probabilities and the best labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cluster.config.model_card import ClassifyPostprocess
from cluster.errors import ConfigError
from cluster.routing.ensembles.combine import top_k
from cluster.tensors import Array, TensorSpec


def softmax(logits: Array) -> Array:
    """Shapes: `[…, classes]` -> the same, FP32, each row summing to 1.

    A row with a +inf is undecided: its infinities share the probability.
    """
    values = np.asarray(logits, dtype=np.float32)
    highest = values.max(axis=-1, keepdims=True)
    if np.isposinf(highest).any():
        values = np.where(np.isposinf(highest), np.where(np.isposinf(values), 0, -np.inf), values)
        highest = values.max(axis=-1, keepdims=True)
    # A row of nothing but -inf would become inf - inf: it has no preference at all.
    highest = np.where(np.isneginf(highest), 0, highest).astype(np.float32)
    values = np.where(np.isneginf(values).all(axis=-1, keepdims=True), 0, values)
    exponentials: Array = np.exp(values - highest)
    exponentials /= exponentials.sum(axis=-1, keepdims=True)
    return exponentials


class Classifier:
    """Raises: ConfigError when the labels are missing, or fewer or more than the classes."""

    def __init__(self, spec: ClassifyPostprocess, folder: Path, logits: TensorSpec) -> None:
        self._spec = spec
        self._labels = _labels(folder / spec.labels)
        classes = logits.shape[-1]
        if classes not in (-1, len(self._labels)):
            raise ConfigError(
                f"{folder / spec.labels}: {len(self._labels)} labels for the {classes} classes "
                f"of output {logits.name!r}",
                file=str(folder / spec.labels),
            )
        if spec.top_k > len(self._labels):
            raise ConfigError(
                f"postprocess.top_k is {spec.top_k}, more than the {len(self._labels)} labels",
                key="postprocess.top_k",
                value=spec.top_k,
            )

    def finish(self, outputs: dict[str, Array], wanted: set[str]) -> dict[str, Array]:
        """`labels`, `scores` `[batch, top_k]` and `probabilities` `[batch, classes]`, as wanted."""
        probabilities = softmax(outputs[self._spec.input])
        found = {"probabilities": probabilities}
        if wanted & {"labels", "scores"}:
            found["labels"], found["scores"] = top_k(probabilities, self._labels, self._spec.top_k)
        return found


def _labels(file: Path) -> tuple[bytes, ...]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: the labels cannot be read: {error}", file=str(file)) from None
    return tuple(line.encode() for line in text.splitlines())
