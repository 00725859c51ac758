"""What goes over a channel: a step's tensors, with what the step is for.

Frame, little-endian: u32 bytes of the head | u64 bytes of the tensors | head (msgpack) | tensors,
each beginning at a multiple of 64. Nothing is pickled.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import msgspec
import numpy as np

from cluster.engines.sharded.part import Step, Values
from cluster.errors import ERRORS_BY_NAME, EngineFailed, ShardLost, SquadronError
from cluster.tensors import Array

PREFIX = struct.Struct("<IQ")
MAX_HEAD_BYTES = 2**20
ALIGNMENT = 64


@dataclass(slots=True, kw_only=True)
class Message:
    """One micro-batch of one step, or the error that ended it on the way.

    `release` gives the memory of received tensors back to the channel: call it when nothing looks
    at them any more.
    """

    number: int
    step: Step
    values: Values
    error: SquadronError | None = None
    release: Callable[[], None] | None = None

    def done(self) -> None:
        if self.release is not None:
            self.release()
            self.release = None


class _Tensor(msgspec.Struct, frozen=True, array_like=True):
    name: str
    dtype: str
    shape: tuple[int, ...]


class _Head(msgspec.Struct, frozen=True, array_like=True):
    number: int
    sequence: str
    is_last_only: bool
    ends: tuple[str, ...]
    tensors: tuple[_Tensor, ...]
    error: tuple[str, str] | None = None
    slot: int = -1
    """Of shared memory; -1 when the tensors follow the head."""
    has_new_memory: bool = False
    trace: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Head)
Head = _Head


def as_array(value: Any) -> Array:
    """Any library's tensor as a contiguous numpy array, without a copy where it is one already."""
    if not isinstance(value, np.ndarray):
        value = value.detach().cpu().contiguous()
        if str(value.dtype) == "torch.bfloat16":
            import torch

            return np.asarray(value.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
        value = value.numpy()
    return np.ascontiguousarray(value).reshape(value.shape)


def head_of(
    message: Message, arrays: dict[str, Array], *, slot: int = -1, has_new_memory: bool = False
) -> bytes:
    error = message.error
    return _encoder.encode(
        _Head(
            number=message.number,
            sequence=message.step.sequence,
            is_last_only=message.step.is_last_only,
            ends=message.step.ends,
            tensors=tuple(_Tensor(k, a.dtype.name, a.shape) for k, a in arrays.items()),
            error=None if error is None else (type(error).__name__, error.message),
            slot=slot,
            has_new_memory=has_new_memory,
            trace=message.step.trace,
        )
    )


def decode_head(data: bytes | bytearray | memoryview) -> _Head:
    """Raises: ShardLost for what is no head: the other end is not one of ours."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ShardLost(f"a shard sent what is no message: {error}") from None


def num_bytes(arrays: dict[str, Array]) -> int:
    return sum(_aligned(array.nbytes) for array in arrays.values())


def views(head: _Head, memory: memoryview) -> Values:
    """The head's tensors as arrays on the memory that holds them."""
    found: Values = {}
    start = 0
    for tensor in head.tensors:
        dtype = _dtype(tensor.dtype)
        count = int(np.prod(tensor.shape, dtype=np.int64))
        array = np.frombuffer(memory, dtype, count, start).reshape(tensor.shape)
        found[tensor.name] = array
        start += _aligned(array.nbytes)
    return found


def layout(head: _Head) -> list[tuple[np.dtype[Any], tuple[int, ...], int]]:
    """Of each tensor the data type, shape and padded bytes."""
    found = []
    for tensor in head.tensors:
        dtype = _dtype(tensor.dtype)
        count = int(np.prod(tensor.shape, dtype=np.int64))
        found.append((dtype, tensor.shape, _aligned(count * dtype.itemsize)))
    return found


def message_of(head: _Head, values: Values, release: Callable[[], None] | None = None) -> Message:
    error = None
    if head.error is not None:
        name, text = head.error
        error = ERRORS_BY_NAME.get(name, EngineFailed)(text)
    step = Step(
        sequence=head.sequence,
        is_last_only=head.is_last_only,
        ends=head.ends,
        trace=head.trace,
    )
    return Message(number=head.number, step=step, values=values, error=error, release=release)


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
