"""The message between a door and a model process: a batch of requests, a batch of replies.

One shape for every transport (memory, Unix socket, Serve handle). Layout, little-endian::

    u32 magic | u32 header bytes | header (JSON) | tensor bytes, each tensor at a multiple of 8

Tensors are described in the header by name, datatype, shape, offset and byte count; BYTES tensors
use the protocol's own coding (u32 length before each element). Times in an envelope are what is
*left* (seconds), because two processes do not share a monotonic clock across nodes.
Nothing in it is ever unpickled.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from cluster.errors import ERRORS_BY_NAME, EngineFailed, SquadronError
from cluster.requests import Parameter, SequenceStep
from cluster.tensors import NUMPY_DTYPES, Tensor, bytes_array

MAGIC = 0x53514401
_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_ALIGN = 8


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One request in an envelope. `call_id` is the door's own; `rows` is its batch size.

    `wanted` names the outputs to compute; empty means the public ones. `sequence` and `parameters`
    are for the models that take them, `trace` is that of a sampled request (see
    `actors.tracing.context`), `waited_s` is how long it waited for a place in an envelope;
    elsewhere they cost nothing. Not frozen: the dispatcher
    fills in `call_id` and, at every send, `left_s`; copies for that cost 6 µs a request.
    """

    call_id: int
    rows: int
    left_s: float
    inputs: tuple[Tensor, ...]
    wanted: tuple[str, ...] = ()
    request_id: str = ""
    priority: int = 0
    tenant: str = ""
    trace: str = ""
    waited_s: float = 0.0
    sequence: SequenceStep | None = None
    parameters: dict[str, Parameter] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class Reply:
    """The answer to one call: outputs, or the error that ended it.

    `queue_s`, `compute_s`: time in the replica's queue and in its engine.
    """

    call_id: int
    outputs: tuple[Tensor, ...] = ()
    error: SquadronError | None = None
    queue_s: float = 0.0
    compute_s: float = 0.0
    batch_rows: int = 0


def encode_calls(calls: Iterable[Call]) -> bytes:
    body = _Body()
    header = [
        {
            "c": call.call_id,
            "n": call.rows,
            "l": call.left_s,
            "w": call.wanted,
            "r": call.request_id,
            "p": call.priority,
            "t": call.tenant,
            "i": [body.add(tensor) for tensor in call.inputs],
            **(_rare(call) if _is_rare(call) else _NOTHING),
        }
        for call in calls
    ]
    return body.whole(header)


_MALFORMED = (KeyError, TypeError, AttributeError, IndexError, OverflowError, struct.error)
"""What reading a header of another shape raises besides ValueError."""

_NOTHING: dict[str, object] = {}


def _is_rare(call: Call) -> bool:
    return bool(call.sequence or call.parameters or call.trace or call.waited_s)


def _rare(call: Call) -> dict[str, object]:
    """The header's fields that most calls do not have."""
    fields: dict[str, object] = {}
    step = call.sequence
    if step is not None:
        # As text: an id may be larger than JSON numbers that every reader takes.
        is_text = isinstance(step.id, str)
        fields["s"] = [str(step.id), is_text, step.is_start, step.is_end]
    if call.parameters:
        fields["m"] = call.parameters
    if call.trace:
        fields["x"] = call.trace
    if call.waited_s:
        fields["a"] = call.waited_s
    return fields


def _step(spec: list[Any]) -> SequenceStep:
    text, is_text, is_start, is_end = spec
    return SequenceStep(id=text if is_text else int(text), is_start=is_start, is_end=is_end)


def decode_calls(message: bytes | memoryview) -> list[Call]:
    """Tensors are views on `message`. Raises: ValueError for anything but an envelope."""
    try:
        header, start = _header(message)
        return [
            Call(
                call_id=item["c"],
                rows=item["n"],
                left_s=item["l"],
                wanted=tuple(item["w"]),
                request_id=item["r"],
                priority=item["p"],
                tenant=item["t"],
                trace=item.get("x", ""),
                waited_s=item.get("a", 0.0),
                inputs=tuple(_tensor(message, start, spec) for spec in item["i"]),
                sequence=_step(item["s"]) if "s" in item else None,
                parameters=item.get("m") or {},
            )
            for item in header
        ]
    except _MALFORMED as error:
        raise ValueError(f"not an envelope of calls: {type(error).__name__}: {error}") from None


def encode_replies(replies: Iterable[Reply]) -> bytes:
    body = _Body()
    header = [
        {
            "c": reply.call_id,
            "q": reply.queue_s,
            "k": reply.compute_s,
            "b": reply.batch_rows,
            "e": _error(reply.error),
            "o": [body.add(tensor) for tensor in reply.outputs],
        }
        for reply in replies
    ]
    return body.whole(header)


def decode_replies(message: bytes | memoryview) -> list[Reply]:
    """Tensors are views on `message`. Raises: ValueError for anything but an envelope."""
    try:
        header, start = _header(message)
        return [
            Reply(
                call_id=item["c"],
                queue_s=item["q"],
                compute_s=item["k"],
                batch_rows=item["b"],
                error=_rebuilt(item["e"]),
                outputs=tuple(_tensor(message, start, spec) for spec in item["o"]),
            )
            for item in header
        ]
    except _MALFORMED as error:
        raise ValueError(f"not an envelope of replies: {type(error).__name__}: {error}") from None


class _Body:
    """Collects tensor bytes and remembers where each begins."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._size = 0

    def add(self, tensor: Tensor) -> list[Any]:
        """The tensor's description: name, datatype, shape, offset, byte count."""
        if tensor.datatype == "BYTES":
            part: bytes | memoryview = b"".join(
                piece for item in tensor.array.flat for piece in (_LENGTH.pack(len(item)), item)
            )
            num_bytes = len(part)
        else:
            array = np.ascontiguousarray(tensor.array)
            num_bytes = array.nbytes
            part = array.reshape(-1).view(np.uint8).data if num_bytes else b""
        start = self._size
        padding = -num_bytes % _ALIGN
        self._parts += [part, bytes(padding)]
        self._size += num_bytes + padding
        return [tensor.name, tensor.datatype, tensor.shape, start, num_bytes]

    def whole(self, header: list[dict[str, Any]]) -> bytes:
        text = orjson.dumps(header)
        text += b" " * (-(_HEAD.size + len(text)) % _ALIGN)
        return b"".join([_HEAD.pack(MAGIC, len(text)), text, *self._parts])


def _header(message: bytes | memoryview) -> tuple[list[dict[str, Any]], int]:
    if len(message) < _HEAD.size:
        raise ValueError(f"an envelope has at least {_HEAD.size} bytes, got {len(message)}")
    magic, size = _HEAD.unpack_from(message)
    if magic != MAGIC:
        raise ValueError(f"not an envelope of this version: magic {magic:#x}, not {MAGIC:#x}")
    start = _HEAD.size + size
    return orjson.loads(memoryview(message)[_HEAD.size : start]), start


def _tensor(message: bytes | memoryview, body: int, spec: list[Any]) -> Tensor:
    name, datatype, shape, offset, num_bytes = spec
    start = body + offset
    if datatype == "BYTES":
        view = memoryview(message)[start : start + num_bytes]
        array = bytes_array(_elements(view), tuple(shape))
    else:
        dtype = NUMPY_DTYPES[datatype]
        count = num_bytes // dtype.itemsize
        array = np.frombuffer(message, dtype=dtype, count=count, offset=start).reshape(shape)
    return Tensor(name=name, datatype=datatype, array=array)


def _elements(view: memoryview) -> list[bytes]:
    items: list[bytes] = []
    at = 0
    while at < len(view):
        (size,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        items.append(bytes(view[at : at + size]))
        at += size
    return items


def _error(error: SquadronError | None) -> list[Any] | None:
    return None if error is None else [type(error).__name__, error.message, error.details]


def _rebuilt(spec: list[Any] | None) -> SquadronError | None:
    if spec is None:
        return None
    name, message, details = spec
    return ERRORS_BY_NAME.get(name, EngineFailed)(message, **details)
