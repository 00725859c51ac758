"""Tensors as JSON arrays: nested or flat in, flat out (protocol section 5.4 to 5.6).

NaN and the infinities are no JSON numbers. Ours, both ways, as in protobuf's JSON mapping: the
strings "NaN", "Infinity" and "-Infinity" in FP16, BF16, FP32 and FP64 tensors. They are valid JSON,
lose nothing, and numpy turns them into floats by itself (`np.array(data, np.float32)`).
FP16 and BF16 are plain JSON numbers.
"""

from __future__ import annotations

from itertools import chain
from math import inf, nan, prod
from typing import Any

import numpy as np

from cluster.errors import InvalidRequest
from cluster.protocols.v2_fields import shown
from cluster.tensors import NUMPY_DTYPES, Array, Datatype, Tensor, bytes_array

_NOT_FINITE = {"NaN": nan, "Infinity": inf, "-Infinity": -inf}
_FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
_MAX_SHOWN_LENGTHS = 5


def array_from_json(data: object, datatype: Datatype, shape: tuple[int, ...], what: str) -> Array:
    """Raises: InvalidRequest for a wrong count, ragged nesting, a wrong kind of value or range."""
    if type(data) is not list:
        raise InvalidRequest(f"data of {what} must be an array, got {shown(data)}")
    items = _flat(data, shape, what)
    if datatype in _FLOATS:
        return _floats(items, datatype, what).reshape(shape)
    kinds = set(map(type, items))
    if datatype == "BYTES":
        _allow(kinds, {str}, items, "a string", what)
        return bytes_array([item.encode() for item in items], shape)
    if datatype == "BOOL":
        _allow(kinds, {bool}, items, "true or false", what)
        return np.array(items, np.bool_).reshape(shape)
    _allow(kinds, {int}, items, f"an integer in the range of {datatype}", what)
    dtype = NUMPY_DTYPES[datatype]
    try:
        return np.array(items, dtype).reshape(shape)
    except OverflowError:
        bounds = np.iinfo(dtype)
        index = next(i for i, item in enumerate(items) if not bounds.min <= item <= bounds.max)
        raise InvalidRequest(
            f"data of {what}: element {index} is {items[index]}, out of range for {datatype} "
            f"({bounds.min} to {bounds.max})"
        ) from None


def _flat(data: list[Any], shape: tuple[int, ...], what: str) -> list[Any]:
    """The elements in row-major order. Nested data must have the shape, flat data its count."""
    if not data or type(data[0]) is not list or len(shape) < 2:
        if len(data) != prod(shape):
            raise InvalidRequest(
                f"data of {what} has {len(data)} elements, shape {list(shape)} needs {prod(shape)}"
            )
        return data
    level: list[Any] = data
    if len(data) != shape[0]:
        raise InvalidRequest(
            f"data of {what} does not match shape {list(shape)}: dimension 0 has {len(data)} "
            f"entries, expected {shape[0]}"
        )
    for axis in range(1, len(shape)):
        if not level:
            break
        if set(map(type, level)) != {list}:
            raise InvalidRequest(
                f"data of {what} is ragged: dimension {axis - 1} holds arrays and values mixed, or "
                f"is nested less deeply than shape {list(shape)}"
            )
        lengths = set(map(len, level))
        if lengths != {shape[axis]}:
            found = ", ".join(map(str, sorted(lengths)[:_MAX_SHOWN_LENGTHS]))
            raise InvalidRequest(
                f"data of {what} {'is ragged and ' if len(lengths) > 1 else ''}does not match "
                f"shape {list(shape)}: dimension {axis} has {found} entries, expected {shape[axis]}"
            )
        level = list(chain.from_iterable(level))
    return level


def _floats(items: list[Any], datatype: Datatype, what: str) -> Array:
    kinds = set(map(type, items))
    if str in kinds:
        items = [_NOT_FINITE.get(x, x) if type(x) is str else x for x in items]
        kinds = set(map(type, items))
    _allow(kinds, {int, float}, items, 'a number (or "NaN", "Infinity", "-Infinity")', what)
    dtype = NUMPY_DTYPES["FP32" if datatype == "BF16" else datatype]
    try:
        with np.errstate(over="raise", under="ignore"):
            array: Array = np.array(items, dtype)
            # ml_dtypes takes no Python ints, hence the detour over FP32.
            return array if datatype != "BF16" else _bfloat16(array)
    except (FloatingPointError, OverflowError):
        limit = _largest(datatype)
        index = next(
            i for i, x in enumerate(items) if isinstance(x, int | float) and limit < abs(x) < inf
        )
        raise InvalidRequest(
            f"data of {what}: element {index} is {shown(items[index])}, out of range for "
            f"{datatype} (largest {limit:g})"
        ) from None


def _bfloat16(array: Array) -> Array:
    rounded = array.astype(NUMPY_DTYPES["BF16"])
    if not np.array_equal(np.isinf(rounded), np.isinf(array)):
        raise FloatingPointError
    return rounded


def _largest(datatype: Datatype) -> float:
    """The largest finite value; only what is above it can overflow."""
    if datatype == "BF16":
        return 3.3895313892515355e38
    return float(np.finfo(NUMPY_DTYPES[datatype]).max)


def _allow(
    kinds: set[type], allowed: set[type], items: list[Any], expected: str, what: str
) -> None:
    if kinds <= allowed:
        return
    index = next(i for i, item in enumerate(items) if type(item) not in allowed)
    item = items[index]
    hint = "; data is nested more deeply than its shape" if type(item) is list else ""
    raise InvalidRequest(
        f"data of {what}: element {index} must be {expected}, got {shown(item)}{hint}"
    )


def json_from_tensor(tensor: Tensor) -> Array | list[Any]:
    """Flat data that orjson can write.

    Raises: InvalidRequest for BYTES that are not UTF-8: the caller should ask for binary.
    """
    if tensor.datatype == "BYTES":
        try:
            return [item.decode() for item in tensor.array.flat]
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"output '{tensor.name}' holds bytes that are not UTF-8 and cannot be sent as "
                'JSON; ask for it in binary: outputs[].parameters {"binary_data": true}'
            ) from None
    dtype = NUMPY_DTYPES["FP32" if tensor.datatype == "BF16" else tensor.datatype]
    # A signalling NaN warns when it is cast; it is a NaN like any other here.
    with np.errstate(invalid="ignore"):
        # orjson reads the buffer itself: it must be contiguous, aligned and of native byte order.
        array = tensor.array
        if array.dtype != dtype or not (array.flags.c_contiguous and array.flags.aligned):
            array = np.require(array, dtype, ("C_CONTIGUOUS", "ALIGNED"))
        array = array.reshape(-1)
        if tensor.datatype in _FLOATS and not np.isfinite(array).all():
            return [x if -inf < x < inf else _token(x) for x in array.astype(np.float64).tolist()]
    return array


def _token(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
