"""Tensors as the protocol's bytes: little-endian, row-major, no padding.

BYTES elements are a uint32 length and that many bytes; a BOOL is one byte, 0 or 1. The same coding
serves HTTP's binary extension and gRPC's raw contents (protocol section 5.5).
"""

from __future__ import annotations

import struct
from math import prod

import numpy as np

from cluster.errors import InvalidRequest
from cluster.tensors import NUMPY_DTYPES, Array, Datatype, Tensor, bytes_array

_LENGTH = struct.Struct("<I")
_COPIED_BELOW = 4096
"""Bytes under which a copy is cheaper than a view (`tobytes` 0.03 µs, a byte view 0.45 µs)."""


def array_from_bytes(
    data: bytes | memoryview, datatype: Datatype, shape: tuple[int, ...], what: str
) -> Array:
    """A view on `data`, possibly not aligned; BYTES elements are copied out of it.

    Raises: InvalidRequest when `data` is not exactly what datatype and shape ask for.
    """
    count = prod(shape)
    if datatype == "BYTES":
        return bytes_array(_elements(data, count, what), shape)
    dtype = NUMPY_DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise InvalidRequest(
            f"input byte size mismatch for {what}. Expected {count * dtype.itemsize} bytes for "
            f"{datatype} {list(shape)}, got {len(data)}"
        )
    if count == 0:
        return np.empty(shape, dtype)
    if datatype == "BOOL" and int(np.frombuffer(data, np.uint8).max()) > 1:
        raise InvalidRequest(f"data of {what}: a BOOL is a byte of value 0 or 1, got another value")
    return np.frombuffer(data, dtype).reshape(shape)


def _elements(data: bytes | memoryview, count: int, what: str) -> list[bytes]:
    """Raises: InvalidRequest when there are not exactly `count` elements in `data`."""
    size, at = len(data), 0
    items: list[bytes] = []
    # Every element takes at least its length: this bounds the loop before it starts.
    if count * _LENGTH.size <= size:
        for _ in range(count):
            if at + _LENGTH.size > size:
                break
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            if length > size - at:
                raise InvalidRequest(
                    f"data of {what}: element {len(items)} claims {length} bytes, "
                    f"{size - at} bytes are left"
                )
            items.append(bytes(data[at : at + length]))
            at += length
    if len(items) != count or at != size:
        raise InvalidRequest(
            f"input byte size mismatch for {what}. Expected exactly {count} BYTES elements, each "
            f"with its uint32 length, got {len(items)} and {size - at} bytes left over"
        )
    return items


def bytes_from_tensor(tensor: Tensor) -> bytes | memoryview:
    """The tensor's bytes; a view on the array when it is large and contiguous."""
    array = tensor.array
    if tensor.datatype == "BYTES":
        return b"".join([piece for item in array.flat for piece in (_LENGTH.pack(len(item)), item)])
    dtype = NUMPY_DTYPES[tensor.datatype]
    if array.dtype != dtype:
        array = array.astype(dtype)
    if array.nbytes < _COPIED_BELOW:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
