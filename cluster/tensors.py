"""Named tensors and their datatypes, as the Open Inference Protocol V2 names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
import numpy.typing as npt

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
DATATYPES: tuple[Datatype, ...] = get_args(Datatype)

Array = npt.NDArray[Any]

NUMPY_DTYPES: dict[Datatype, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(np.object_),
}
_DATATYPE_OF: dict[np.dtype[Any], Datatype] = {v: k for k, v in NUMPY_DTYPES.items()}


def datatype_of(array: Array) -> Datatype:
    """The V2 datatype of an array; object, bytes and str arrays are BYTES.

    Raises: TypeError for a dtype that V2 has no name for (complex, datetime, …).
    """
    if array.dtype.kind in "SUO":
        return "BYTES"
    try:
        return _DATATYPE_OF[array.dtype.newbyteorder("<")]
    except (KeyError, TypeError):
        raise TypeError(f"no Open Inference datatype for numpy dtype {array.dtype}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a model.

    Shapes: `shape` is whole, batch dimension first when the model is batched; -1 is "any size".
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a model takes and gives. `extra_outputs` are answered only when asked for by name."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    extra_outputs: tuple[TensorSpec, ...] = ()

    def input(self, name: str) -> TensorSpec | None:
        return next((spec for spec in self.inputs if spec.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        every = (*self.outputs, *self.extra_outputs)
        return next((spec for spec in every if spec.name == name), None)


@dataclass(slots=True, kw_only=True, eq=False)
class Tensor:
    """A named array. BYTES tensors are object arrays whose elements are `bytes`. Not changed once
    it is made; not frozen, because several are made a request.

    The array is often a view on the request's own bytes: treat it as read-only.
    """

    name: str
    datatype: Datatype
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def num_bytes(self) -> int:
        if self.datatype == "BYTES":
            return sum(len(item) + 4 for item in self.array.flat)
        return int(self.array.nbytes)


def tensor(name: str, array: Array) -> Tensor:
    """A tensor from any array that V2 can name; str elements become UTF-8 bytes."""
    datatype = datatype_of(array)
    if datatype == "BYTES":
        flat = [x.encode() if isinstance(x, str) else bytes(x) for x in array.flat]
        array = bytes_array(flat, array.shape)
    return Tensor(name=name, datatype=datatype, array=array)


def bytes_array(items: list[bytes], shape: tuple[int, ...]) -> Array:
    """An object array of `bytes` (numpy alone would cut trailing NULs by choosing dtype S)."""
    array = np.empty(len(items), dtype=np.object_)
    array[:] = items
    return array.reshape(shape)
