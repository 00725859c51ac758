"""Tensors and requests for the protocol tests, made by hand and by hypothesis."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import orjson
from hypothesis import strategies as st

from cluster.requests import InferenceRequest, InferenceResponse, RequestedOutput
from cluster.tensors import DATATYPES, NUMPY_DTYPES, Datatype, Tensor, bytes_array, tensor


@st.composite
def tensors(draw: st.DrawFn, *, name: str = "x", is_text: bool = False) -> Tensor:
    """Any datatype, any shape up to 3 dimensions, every bit pattern; `is_text`: BYTES as UTF-8."""
    datatype: Datatype = draw(st.sampled_from(DATATYPES))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    count = prod(shape)
    if datatype == "BYTES":
        words = st.text().map(str.encode) if is_text else st.binary(max_size=20)
        items = draw(st.lists(words, min_size=count, max_size=count))
        return Tensor(name=name, datatype=datatype, array=bytes_array(items, shape))
    dtype = NUMPY_DTYPES[datatype]
    size = count * dtype.itemsize
    if datatype == "BOOL":
        bits = bytes(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    else:
        bits = draw(st.binary(min_size=size, max_size=size))
    return Tensor(name=name, datatype=datatype, array=np.frombuffer(bits, dtype).reshape(shape))


def is_same(a: Tensor, b: Tensor) -> bool:
    """Equal in everything; any NaN equals any NaN."""
    if (a.name, a.datatype, a.shape, a.array.dtype) != (b.name, b.datatype, b.shape, b.array.dtype):
        return False
    if a.datatype == "BYTES" or a.array.dtype.kind in "biu":
        return bool(np.array_equal(a.array, b.array))
    with np.errstate(invalid="ignore"):  # casting a signalling NaN warns
        left, right = a.array.astype(np.float64), b.array.astype(np.float64)
    return bool(np.array_equal(left, right, equal_nan=True))


def floats(*values: float, name: str = "x") -> Tensor:
    return tensor(name, np.array(values, np.float32))


def asked(*outputs: RequestedOutput, **fields: Any) -> InferenceRequest:
    return InferenceRequest(model="m", inputs=(), outputs=outputs, **fields)


def answer(*outputs: Tensor, **fields: Any) -> InferenceResponse:
    return InferenceResponse(model="m", version="1", outputs=outputs, **fields)


def body_with(**entry: Any) -> bytes:
    """A JSON request with one input: FP32 [2] with data [1, 2], or what `entry` says instead."""
    whole = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0], **entry}
    return orjson.dumps({"inputs": [{k: v for k, v in whole.items() if v is not ...}]})
