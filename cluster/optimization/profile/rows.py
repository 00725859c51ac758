"""A model with one row of random inputs for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.config.store import ModelStore
from cluster.optimization.intake.model import GivenModel, open_model
from cluster.optimization.intake.random_inputs import random_items
from cluster.tensors import Array


def open_with_row(
    model: str | Path,
    *,
    store: ModelStore,
    workspace: Path,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[GivenModel, dict[str, Array]]:
    """Raises: ConfigError as `open_model` and `random_items`."""
    given = open_model(model, store=store, workspace=workspace, inputs=inputs, outputs=outputs)
    if given.example is not None:
        return given, dict(given.example)
    return given, random_items(given.card, 1, shapes=shapes, graph=given.onnx)[0]
