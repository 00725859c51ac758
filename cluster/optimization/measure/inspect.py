"""A model's card beside what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config.store import ModelStore
from cluster.optimization.export.program import load_program
from cluster.optimization.intake.model import GivenModel, open_model
from cluster.optimization.intake.random_inputs import random_items
from cluster.optimization.measure.cost import ModelCost, module_cost, onnx_cost
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import nn


def inspect_model(
    model: str | Path | nn.Module,
    *,
    store: ModelStore,
    workspace: Path,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    example: Mapping[str, Array] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[GivenModel, ModelCost]:
    """For one row of the shapes given (see `random_items` for those that are not).

    Raises: ConfigError as `open_model` does.
    """
    given = open_model(
        model, store=store, workspace=workspace, inputs=inputs, outputs=outputs, example=example
    )
    if given.module is not None and given.example is not None:
        return given, module_cost(given.module, given.example)
    (row,) = random_items(given.card, 1, shapes=shapes, graph=given.onnx)
    if given.onnx is not None:
        return given, onnx_cost(given.onnx, row)
    return given, module_cost(load_program(given), row)
