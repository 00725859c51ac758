"""A call of a model as the bytes of an HTTP request, and the bytes of the answer as arrays.

Tensors travel in binary both ways (Open Inference Protocol V2, binary data extension).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from cluster.errors import (
    DeadlineExceeded,
    EngineFailed,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    SquadronError,
    Unauthorized,
    Unsupported,
)
from cluster.protocols.v2_binary import array_from_bytes, bytes_from_tensor
from cluster.protocols.v2_numbers import array_from_json
from cluster.tensors import Array, Signature, TensorSpec, tensor

Compression = Literal["gzip", "deflate"]
JSON_LENGTH = "Inference-Header-Content-Length"
MIN_COMPRESSED_BYTES = 1024
_WBITS: dict[Compression, int] = {"gzip": 31, "deflate": 15}

_ERRORS: dict[int, type[SquadronError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: ModelNotFound,
    413: PayloadTooLarge,
    429: RateLimited,
    501: Unsupported,
    503: Overloaded,
    504: DeadlineExceeded,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`headers` are found by name in any case. `content` is decompressed."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """Raises: EngineFailed for what is no JSON."""
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError as error:
            raise EngineFailed(f"the server's answer cannot be read: {error}") from None


def encode_call(
    inputs: Mapping[str, Array],
    outputs: tuple[str, ...],
    *,
    places: Mapping[str, Mapping[str, Any]] | None = None,
    compression: Compression | None = None,
) -> Body:
    """`places`: inputs that lie in shared memory, with the parameters that say where.

    Raises: InvalidRequest for an array that the protocol has no datatype for.
    """
    entries: list[dict[str, Any]] = []
    chunks: list[bytes | memoryview] = []
    for name, array in inputs.items():
        try:
            given = tensor(name, array)
        except TypeError as error:
            raise InvalidRequest(f"input {name!r}: {error}") from None
        entry: dict[str, Any] = {
            "name": name, "datatype": given.datatype, "shape": list(array.shape),
        }  # fmt: skip
        if places is not None and name in places:
            entry["parameters"] = dict(places[name])
        else:
            chunk = bytes_from_tensor(given)
            entry["parameters"] = {"binary_data_size": len(chunk)}
            chunks.append(chunk)
        entries.append(entry)
    message: dict[str, Any] = {"inputs": entries, "parameters": {"binary_data_output": True}}
    if outputs:
        message["outputs"] = [{"name": name} for name in outputs]
    text = orjson.dumps(message)
    content = b"".join((text, *chunks))
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(text))}
    if compression is not None:
        headers["Accept-Encoding"] = compression
        if len(content) >= MIN_COMPRESSED_BYTES:
            encoder = zlib.compressobj(1, zlib.DEFLATED, _WBITS[compression])
            content = encoder.compress(content) + encoder.flush()
            headers["Content-Encoding"] = compression
    return Body(content=content, headers=headers)


def decode_answer(content: bytes, json_length: str | None) -> dict[str, Array]:
    """Views on the answer's bytes, which belong to nobody else.

    Raises: EngineFailed for an answer that is not the protocol's.
    """
    view = memoryview(bytearray(content))
    end = int(json_length) if json_length is not None else len(view)
    try:
        message = orjson.loads(view[:end])
        found: dict[str, Array] = {}
        for entry in message["outputs"]:
            what, shape = f"output {entry['name']!r}", tuple(entry["shape"])
            size = (entry.get("parameters") or {}).get("binary_data_size")
            if size is None:
                array = array_from_json(entry["data"], entry["datatype"], shape, what)
            else:
                array = array_from_bytes(view[end : end + size], entry["datatype"], shape, what)
                end += size
            found[entry["name"]] = array
    except (KeyError, TypeError, ValueError, InvalidRequest) as error:
        raise EngineFailed(f"the server's answer cannot be read: {error}") from None
    return found


def pieces(events: bytes, model: str) -> Iterator[str | int]:
    """Text or token ids out of a stream of events.

    Raises: EngineFailed as the stream says; Unsupported for a model that gives neither.
    """
    for line in events.splitlines():
        if not line.startswith(b"data: "):
            continue
        told = orjson.loads(line[6:])
        if "error" in told:
            raise EngineFailed(str(told["error"]))
        found = told.get("text_output", told.get("token"))
        if found is None:
            raise Unsupported(f"{model} gives neither text_output nor token: it generates nothing")
        yield found


def error_of(status: int, content: bytes, retry_after: str | None) -> SquadronError:
    """What a status above 399 means to the caller, with the server's own words."""
    try:
        said = orjson.loads(content)["error"]
        text = said if isinstance(said, str) else str(said["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = content[:300].decode("utf-8", "replace") or f"HTTP status {status}"
    kind = _ERRORS.get(status) or (InvalidRequest if status < 500 else EngineFailed)
    seconds = seconds_of(retry_after)
    if seconds is None:
        return kind(text, status=status)
    return kind(text, status=status, retry_after_s=seconds)


def seconds_of(retry_after: str | None) -> float | None:
    """Of a Retry-After field; None for a date, which our servers do not send."""
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None


def signature_of(metadata: Mapping[str, Any], on_request: str = "") -> Signature:
    """Of `GET /v2/models/NAME`; `on_request`: outputs that are given when asked for, by commas."""
    return Signature(
        inputs=tuple(_spec(entry) for entry in metadata["inputs"]),
        outputs=tuple(_spec(entry) for entry in metadata["outputs"]),
        extra_outputs=tuple(
            # Neither datatype nor shape is told of these; all that there are so far are scores.
            TensorSpec(name=name, datatype="FP32", shape=(-1, -1))
            for name in on_request.split(",")
            if name
        ),
    )


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name=entry["name"], datatype=entry["datatype"], shape=tuple(entry["shape"]))
