"""The messages of gRPC's management calls: bytes to plain values and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from cluster.errors import InvalidRequest, Unsupported
from cluster.protocols.extensions.settings import LogSettings, TraceValue
from cluster.protocols.grpc_schema import HEALTH_METHODS, METHODS


def parsed(method: str, data: bytes) -> Any:
    """The request message of a method of the inference service. Raises: InvalidRequest."""
    return _parsed(METHODS[method].request, data)


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        name = kind.DESCRIPTOR.name
        raise InvalidRequest(f"failed to parse {len(data)} bytes as {name}: {error}") from None


def encoded(method: str, **fields: Any) -> bytes:
    """The bytes of a method's answer."""
    data: bytes = METHODS[method].response(**fields).SerializeToString()
    return data


def decode_trace_setting(data: bytes) -> tuple[str, dict[str, list[str] | None]]:
    """The model's name ("": the server) and the changes; a setting without a value is taken back.

    Raises: InvalidRequest.
    """
    message = parsed("TraceSetting", data)
    changes = {name: list(entry.value) or None for name, entry in message.settings.items()}
    return message.model_name, changes


def encode_trace_setting(settings: Mapping[str, TraceValue]) -> bytes:
    answer = METHODS["TraceSetting"].response()
    for name, value in settings.items():
        answer.settings[name].value.extend([value] if isinstance(value, str) else value)
    data: bytes = answer.SerializeToString()
    return data


def decode_log_settings(data: bytes) -> dict[str, object]:
    """The changes. Raises: InvalidRequest."""
    message = parsed("LogSettings", data)
    found: dict[str, object] = {}
    for name, entry in message.settings.items():
        choice = entry.WhichOneof("parameter_choice")
        found[name] = None if choice is None else getattr(entry, choice)
    return found


def encode_log_settings(settings: LogSettings) -> bytes:
    answer = METHODS["LogSettings"].response()
    for name, value in settings.as_json().items():
        entry = answer.settings[name]
        match value:
            case bool():
                entry.bool_param = value
            case int():
                entry.uint32_param = value
            case _:
                entry.string_param = value
    data: bytes = answer.SerializeToString()
    return data


def refuse_repository_name(message: Any) -> None:
    """There is one repository; it has no name. Raises: Unsupported."""
    if message.repository_name:
        raise Unsupported("'repository_name' specification is not supported")


def decode_load(data: bytes) -> tuple[str, str, dict[str, bytes]]:
    """Model, configuration (JSON, empty when none was sent) and files by parameter name.

    Raises: InvalidRequest, Unsupported.
    """
    message = parsed("RepositoryModelLoad", data)
    refuse_repository_name(message)
    config, files = "", {}
    for name, entry in message.parameters.items():
        kind = entry.WhichOneof("parameter_choice")
        if name == "config" and kind == "string_param":
            config = entry.string_param
        elif name.startswith("file:") and kind == "bytes_param":
            files[name] = entry.bytes_param
        else:
            raise InvalidRequest(f"load parameter {name[:80]!r} ({kind}) is not one of Triton's")
    return message.model_name, config, files


def decode_unload(data: bytes) -> tuple[str, bool]:
    """Model, and whether what only it needs goes too. Raises: InvalidRequest, Unsupported."""
    message = parsed("RepositoryModelUnload", data)
    refuse_repository_name(message)
    entry = message.parameters.get("unload_dependents")
    return message.model_name, bool(entry is not None and entry.bool_param)


def decode_health(data: bytes) -> str:
    """The service asked about; empty: the server. Raises: InvalidRequest."""
    service: str = _parsed(HEALTH_METHODS["Check"].request, data).service
    return service


def encode_health(status: str) -> bytes:
    """`status`: SERVING, NOT_SERVING or SERVICE_UNKNOWN."""
    data: bytes = HEALTH_METHODS["Check"].response(status=status).SerializeToString()
    return data
