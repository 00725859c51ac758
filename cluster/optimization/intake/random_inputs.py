"""Inputs for a model nobody gave data for: the right shapes and datatypes, random numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    graph: Path | None = None,
    seed: int = 0,
) -> tuple[dict[str, Array], ...]:
    """`num` items of one row each (of the whole input when the model is not batched).

    `shapes`: input name -> whole shape, where the caller knows better than our guess. `graph`: the
    ONNX file; it tells how great integers may be (0 and 1 elsewhere) and which sizes go together.
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
    bounds = index_bounds(graph) if graph is not None else {}
    whole = _shapes(every, card.batched, given, size_names(graph) if graph is not None else {})
    for spec in every:
        _check_shape(spec, whole[spec.name])
    return tuple(
        {spec.name: _array(spec, whole[spec.name], bounds, draw) for spec in every}
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


def size_names(graph: Path) -> dict[str, tuple[str, ...]]:
    """Input -> what the graph calls each of its sizes ("" where it says a number or nothing)."""
    import onnx

    return {
        value.name: tuple(dim.dim_param for dim in value.type.tensor_type.shape.dim)
        for value in onnx.load(str(graph), load_external_data=False).graph.input
    }


def _shapes(
    every: Sequence[TensorSpec],
    is_batched: bool,
    given: Mapping[str, tuple[int, ...]],
    names: Mapping[str, tuple[str, ...]],
) -> dict[str, tuple[int, ...]]:
    """Sizes that the graph calls by one name are one: the caller's, else the first guess, ids
    before all else, as they are what is guessed best."""
    known: dict[str, int] = {}
    found: dict[str, tuple[int, ...]] = {}
    order = sorted(every, key=lambda s: (s.name not in given, not s.datatype.startswith("INT")))
    for spec in order:
        called = names.get(spec.name, ())
        shape = given.get(spec.name) or _shape(spec, is_batched)
        if spec.name not in given and len(called) == len(shape) == len(spec.shape):
            shape = tuple(
                known.get(name, size) if name and said == -1 else size
                for name, said, size in zip(called, spec.shape, shape, strict=True)
            )
        found[spec.name] = shape
        for name, size in zip(called, shape, strict=False):
            known.setdefault(name, size)
    return found


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
