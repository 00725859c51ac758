"""gRPC server reflection over our private descriptor pool: what `grpcurl` asks.

The public package for it describes the process's default pool only, where our messages must not be.
Source: the standard service grpc.reflection.v1 (and v1alpha, the same messages).
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from cluster.errors import InvalidRequest
from cluster.protocols.grpc_schema import (
    HEALTH_SERVICE,
    POOL,
    REFLECTION_SERVICES,
    SERVICE,
    message_class,
)

_Request = message_class("grpc.reflection.v1.ServerReflectionRequest")
_Response = message_class("grpc.reflection.v1.ServerReflectionResponse")
_NOT_FOUND = 5
_UNIMPLEMENTED = 12


def answer_reflection(data: bytes) -> bytes:
    """One message of the stream. Unknown names are errors inside the answer.

    Raises: InvalidRequest for bytes that are no request.
    """
    try:
        asked = _Request.FromString(data)
    except DecodeError as error:
        raise InvalidRequest(f"failed to parse a reflection request: {error}") from None
    answer = _Response(valid_host=asked.host, original_request=asked)
    match asked.WhichOneof("message_request"):
        case "list_services":
            for name in (SERVICE, HEALTH_SERVICE, *REFLECTION_SERVICES):
                answer.list_services_response.service.add(name=name)
        case "file_by_filename":
            _describe(answer, POOL.FindFileByName, asked.file_by_filename)
        case "file_containing_symbol":
            _describe(answer, POOL.FindFileContainingSymbol, asked.file_containing_symbol)
        case _:
            # The protocol's files are proto3: no message has extensions.
            answer.error_response.error_code = _UNIMPLEMENTED
            answer.error_response.error_message = "these messages have no extensions"
    encoded: bytes = answer.SerializeToString()
    return encoded


def _describe(answer: Any, find: Any, name: str) -> None:
    """Fill in the file that `find` gives for `name` and all that it imports."""
    try:
        waiting = [find(name)]
    except KeyError:
        answer.error_response.error_code = _NOT_FOUND
        answer.error_response.error_message = f"{name[:200]!r} is not known"
        return
    seen: set[str] = set()
    while waiting:
        file = waiting.pop()
        if file.name not in seen:
            seen.add(file.name)
            answer.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
            waiting.extend(file.dependencies)
