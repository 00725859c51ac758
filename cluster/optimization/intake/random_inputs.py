"""Inputs for a model nobody gave data for: the right shapes and datatypes, random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cluster.config.model_card import ModelCard
from cluster.errors import ConfigError
from cluster.tensors import NUMPY_DTYPES, Array, TensorSpec

TOKENS = 128
PIXELS = 224
OTHER = 16
"""What stands for a dimension of any size: tokens of a text, side of a picture, anything else."""


def random_items(
    card: ModelCard,
    num: int,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    bounds: Mapping[str, int] | None = None,
    seed: int = 0,
) -> tuple[dict[str, Array], ...]:
    """`num` items of one row each (of the whole input when the model is not batched).

    `shapes`: input name -> whole shape, where the caller knows better than our guess. `bounds`:
    input name -> one above the greatest integer it takes (see `index_bounds`); 2 where unknown.
    Raises: ConfigError for a shape that is not the input's, and for text inputs.
    """
    draw = np.random.default_rng(seed)
    every = card.raw_signature().inputs
    given = dict(shapes or {})
    for name in given:
        if name not in {spec.name for spec in every}:
            allowed = ", ".join(spec.name for spec in every)
            raise ConfigError(
                f"shape for an input {name!r}, which the model has not; it takes {allowed}",
                key="shape",
                value=name,
                allowed=allowed,
            )
    whole = {spec.name: given.get(spec.name) or _shape(spec, card.batched) for spec in every}
    for spec in every:
        _check_shape(spec, whole[spec.name])
    return tuple(
        {spec.name: _array(spec, whole[spec.name], bounds or {}, draw) for spec in every}
        for _ in range(num)
    )


def index_bounds(graph: Path) -> dict[str, int]:
    """Integer input -> rows of the table that it is looked up in (a vocabulary), from the graph."""
    import onnx

    proto = onnx.load(str(graph), load_external_data=False).graph
    rows = {each.name: int(each.dims[0]) for each in proto.initializer if each.dims}
    # A cast or a reshape between an input and its table does not change what it may hold.
    origin = {each.name: each.name for each in proto.input}
    bounds: dict[str, int] = {}
    for node in proto.node:
        if node.op_type in ("Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity"):
            if node.input and node.input[0] in origin:
                origin[node.output[0]] = origin[node.input[0]]
        elif node.op_type == "Gather" and node.input[1] in origin and node.input[0] in rows:
            name = origin[node.input[1]]
            bounds[name] = min(bounds.get(name, rows[node.input[0]]), rows[node.input[0]])
    return bounds


def _shape(spec: TensorSpec, is_batched: bool) -> tuple[int, ...]:
    whole = list(spec.shape)
    if is_batched and whole:
        whole[0] = 1
    is_picture = len(whole) == 4 and spec.datatype.startswith(("FP", "BF", "UINT8"))
    for position, size in enumerate(whole):
        if size != -1:
            continue
        if position == 0:
            whole[position] = 1
        elif is_picture:
            whole[position] = 3 if position == 1 and whole[-1] != 3 else PIXELS
        elif spec.datatype.startswith("INT"):
            whole[position] = TOKENS
        else:
            whole[position] = OTHER
    return tuple(whole)


def _check_shape(spec: TensorSpec, shape: tuple[int, ...]) -> None:
    fits = len(shape) == len(spec.shape) and all(
        said in (-1, size) for said, size in zip(spec.shape, shape, strict=True)
    )
    if not fits or any(size < 1 for size in shape):
        raise ConfigError(
            f"input {spec.name!r}: shape {list(shape)} does not fit the model's {list(spec.shape)}",
            key=f"shape.{spec.name}",
            value=str(list(shape)),
            allowed=str(list(spec.shape)),
        )


def _array(
    spec: TensorSpec, shape: tuple[int, ...], bounds: Mapping[str, int], draw: np.random.Generator
) -> Array:
    if spec.datatype == "BYTES":
        raise ConfigError(
            f"input {spec.name!r} is text: random bytes say nothing; give data with --data",
            key="data",
        )
    dtype = NUMPY_DTYPES[spec.datatype]
    if spec.datatype == "BOOL" or "mask" in spec.name.lower():
        return np.ones(shape, dtype)
    if spec.datatype.startswith(("FP", "BF")):
        return draw.standard_normal(shape).astype(dtype)
    return draw.integers(0, bounds.get(spec.name, 2), shape).astype(dtype)
