"""Trace and logging settings: values, what a change may be, and how they read on the wire.

A change maps names to values; None takes a setting back. Trace values are strings on the wire and
`trace_level` is an array of them; logging values keep their own types.
Source: protocol section 5.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cluster.errors import InvalidRequest, Unsupported
from cluster.protocols.v2_fields import shown

TraceValue = str | tuple[str, ...]
TraceChange = dict[str, TraceValue | None]

TRACE_DEFAULTS: Mapping[str, TraceValue] = {
    "trace_file": "",
    "trace_level": ("OFF",),
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
_LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")
_LOWEST = {"trace_rate": 0, "trace_count": -1, "log_frequency": 0}
_MAX_COUNT = 2**32 - 1


def trace_change(content: Mapping[str, Any]) -> TraceChange:
    """The settings to change, checked.

    Raises: InvalidRequest for an unknown name or a value it cannot have; Unsupported for the file.
    """
    return {name: _trace_value(name, value) for name, value in content.items()}


def _trace_value(name: str, value: Any) -> TraceValue | None:
    if name == "trace_file":
        raise Unsupported("trace file location can not be updated through network protocol")
    if name not in TRACE_DEFAULTS or name == "trace_mode":
        allowed = ", ".join(("trace_level", *_LOWEST))
        raise InvalidRequest(f"unknown trace setting {name[:60]!r}; allowed: {allowed}")
    if value is None:
        return None
    if name == "trace_level":
        levels = value if isinstance(value, list | tuple) else [value]
        if not levels or any(level not in _LEVELS for level in levels):
            raise InvalidRequest(
                f"trace_level must be an array of {', '.join(_LEVELS)}, got {shown(value)}"
            )
        return tuple(levels)
    return str(_whole(name, value, _LOWEST[name]))


def _whole(name: str, value: Any, lowest: int) -> int:
    """A whole number, also one written as text or as an array of one text (gRPC)."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and len(value) < 20 and value.removeprefix("-").isdecimal():
        value = int(value)
    if type(value) is not int or not lowest <= value <= _MAX_COUNT:
        raise InvalidRequest(
            f"{name} must be a whole number from {lowest} to {_MAX_COUNT}, got {shown(value)}"
        )
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Named as Triton names them. `log_verbose_level` > 0 logs debugging lines."""

    log_file: str = ""
    log_info: bool = True
    log_warning: bool = True
    log_error: bool = True
    log_verbose_level: int = 0
    log_format: str = "default"

    def changed(self, content: Mapping[str, Any]) -> LogSettings:
        """Raises: InvalidRequest; Unsupported for the file."""
        return replace(self, **{name: _log_value(name, v) for name, v in content.items()})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _log_value(name: str, value: Any) -> Any:
    match name:
        case "log_file":
            raise Unsupported("log file location can not be updated through network protocol")
        case "log_info" | "log_warning" | "log_error":
            if type(value) is not bool:
                raise InvalidRequest(f"{name} must be a boolean, got {shown(value)}")
        case "log_verbose_level":
            if type(value) is not int or not 0 <= value <= _MAX_COUNT:
                raise InvalidRequest(f"{name} must be a whole number >= 0, got {shown(value)}")
        case "log_format":
            if value not in ("default", "ISO8601"):
                raise InvalidRequest(f"{name} must be default or ISO8601, got {shown(value)}")
        case _:
            allowed = "log_info, log_warning, log_error, log_verbose_level, log_format"
            raise InvalidRequest(f"unknown log setting {name[:60]!r}; allowed: {allowed}")
    return value
