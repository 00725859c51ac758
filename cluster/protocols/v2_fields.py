"""The fields that V2 requests share over JSON and gRPC: datatypes, shapes, parameters.

Every function takes `what`, the words that name the place in the request ("input 'x' for model
'm'"), and raises InvalidRequest with it, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from cluster.errors import InvalidRequest
from cluster.requests import Parameter
from cluster.tensors import DATATYPES, NUMPY_DTYPES, Datatype

MAX_DIMS = 32
MAX_ELEMENTS = 2**40
"""Zero dimensions do not lift it: numpy refuses an empty array with other dimensions above it."""

MAX_NAME_LENGTH = 1024
"""Characters of a tensor's name; names appear in error texts."""

MAX_SEQUENCE_ID_BYTES = 128
"""Triton's limit for ids that are texts. Doors and replicas keep them while the sequence lives."""

_KINDS = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
_MAX_SHOWN = 60
LARGEST_UINT64 = 2**64 - 1


def shown(value: object) -> str:
    """A value for an error text. Containers by kind only: they may be huge or deeply nested."""
    kind = _KINDS.get(type(value), type(value).__name__)
    if isinstance(value, list | dict | None):
        return kind
    text = repr(value[:_MAX_SHOWN]) if isinstance(value, str) else repr(value)
    return f"{kind} {text}"


def text_field(value: object, what: str) -> str:
    if type(value) is not str:
        raise InvalidRequest(f"{what} must be a string, got {shown(value)}")
    return value


def name_field(value: object, what: str) -> str:
    name = text_field(value, what)
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        raise InvalidRequest(f"{what} must have 1 to {MAX_NAME_LENGTH} characters, got {len(name)}")
    return name


def datatype_field(value: object, what: str) -> Datatype:
    if type(value) is str and value in NUMPY_DTYPES:
        return value
    raise InvalidRequest(
        f"datatype of {what} must be one of {', '.join(DATATYPES)}, got {shown(value)}"
    )


def shape_field(value: object, what: str) -> tuple[int, ...]:
    """A shape of whole numbers >= 0, small enough that no product of it can overflow."""
    if type(value) is not list:
        raise InvalidRequest(
            f"shape of {what} must be an array of whole numbers >= 0, got {shown(value)}"
        )
    if len(value) > MAX_DIMS:
        raise InvalidRequest(f"shape of {what} has {len(value)} dimensions, at most {MAX_DIMS}")
    for dim in value:
        if type(dim) is not int or dim < 0:
            raise InvalidRequest(
                f"shape of {what} must hold whole numbers >= 0 only, got {shown(dim)}"
            )
    if prod(value) > MAX_ELEMENTS or (0 in value and prod(map(_at_least_1, value)) > MAX_ELEMENTS):
        raise InvalidRequest(f"shape of {what} has too many elements, at most {MAX_ELEMENTS}")
    return tuple(value)


def _at_least_1(dim: int) -> int:
    return dim or 1


def parameters_field(value: object, what: str) -> dict[str, Parameter]:
    """String, integer, double and bool values; the prefix `triton_` is the server's own."""
    if type(value) is not dict:
        raise InvalidRequest(f"parameters of {what} must be an object, got {shown(value)}")
    for key, entry in value.items():
        if type(entry) not in (str, int, float, bool):
            raise InvalidRequest(
                f"parameter '{key[:_MAX_SHOWN]}' of {what} must be a string, integer, double or "
                f"bool, got {shown(entry)}"
            )
        if key.startswith("triton_"):
            raise InvalidRequest(
                f"parameter '{key[:_MAX_SHOWN]}' of {what} is reserved: "
                "parameters starting with 'triton_' are not allowed"
            )
    return value


def bool_parameter(parameters: Mapping[str, Parameter], key: str, what: str) -> bool | None:
    value = parameters.get(key)
    if value is not None and type(value) is not bool:
        raise InvalidRequest(f"parameter '{key}' of {what} must be a bool, got {shown(value)}")
    return value


def uint_parameter(parameters: Mapping[str, Parameter], key: str, what: str) -> int | None:
    value = parameters.get(key)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= LARGEST_UINT64:
        raise InvalidRequest(
            f"parameter '{key}' of {what} must be a whole number >= 0, got {shown(value)}"
        )
    return value


def check_reserved(parameters: Mapping[str, Parameter]) -> int:
    """The request's priority (0: none), after checking the types of the reserved parameters."""
    what = "the request"
    for key in ("sequence_start", "sequence_end", "binary_data_output"):
        bool_parameter(parameters, key, what)
    sequence_id = parameters.get("sequence_id")
    if type(sequence_id) is not str:
        uint_parameter(parameters, "sequence_id", what)
    elif len(sequence_id) > MAX_SEQUENCE_ID_BYTES or (
        not sequence_id.isascii() and len(sequence_id.encode()) > MAX_SEQUENCE_ID_BYTES
    ):
        raise InvalidRequest(
            f"parameter 'sequence_id' of {what} has more than {MAX_SEQUENCE_ID_BYTES} bytes"
        )
    uint_parameter(parameters, "timeout", what)
    return uint_parameter(parameters, "priority", what) or 0


def refuse_duplicates(names: Sequence[str], kind: str) -> None:
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidRequest(f"{kind} '{name}' already exists in request")
        seen.add(name)
