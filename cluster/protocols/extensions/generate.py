"""The generate extension: one flat JSON object in, one out; no tensors' shapes to write.

A field with the name of an input becomes that input, `id` the request's id, any other a parameter;
the members of an object `parameters` count as if they stood beside it. Texts of errors are
Triton's. Source: protocol section 5.11.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from cluster.errors import InvalidRequest, SquadronError
from cluster.protocols.v2_fields import check_reserved, parameters_field, shown, text_field
from cluster.protocols.v2_numbers import array_from_json, json_from_tensor
from cluster.requests import InferenceRequest, InferenceResponse, Parameter
from cluster.tensors import Datatype, Signature, Tensor, TensorSpec

ONE_RESPONSE = (
    "generate expects model to produce exactly 1 response, use generate stream for model that "
    "generates various number of responses"
)
MAX_DEPTH = 100


class _Pairs(list[tuple[str, Any]]):
    """An object's members in their order; a name may come twice."""


def decode_generate(
    body: bytes, *, model: str, version: str, signature: Signature
) -> InferenceRequest:
    """Raises: InvalidRequest naming the field, what was expected and what came."""
    fields = _Fields(signature)
    for name, value in _object(body):
        if name == "parameters" and isinstance(value, _Pairs):
            for inner, entry in value:
                fields.take(inner, entry)
        else:
            fields.take(name, value)
    parameters = parameters_field(fields.parameters, "the request")
    return InferenceRequest(
        model=model,
        version=version,
        request_id=fields.request_id,
        inputs=tuple(fields.inputs.values()),
        parameters=parameters,
        priority=check_reserved(parameters),
    )


class _Fields:
    """What the members of the object have become so far."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self.inputs: dict[str, Tensor] = {}
        self.parameters: dict[str, Parameter] = {}
        self.request_id = ""

    def take(self, name: str, value: object) -> None:
        spec = self._signature.input(name)
        if spec is not None:
            if name in self.inputs:
                raise InvalidRequest(f"input '{name}' already exists in request")
            self.inputs[name] = _tensor(spec, value)
        elif name == "id":
            self.request_id = text_field(value, "'id'")
        elif isinstance(value, str | bool | int | float):
            self.parameters[name] = value
        elif value is not None:
            raise InvalidRequest(
                f"parameter '{name[:60]}' has invalid type. It should be either 'int', 'bool', "
                f"'double' or 'string', got {_shown(value)}"
            )


def _object(body: bytes) -> _Pairs:
    try:
        # The strict parser first: the other one takes bare NaN, and tells of names that come twice.
        orjson.loads(body)
        found = json.loads(body, object_pairs_hook=_Pairs)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"failed to parse the request JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest(f"JSON nesting depth exceeds the limit of {MAX_DEPTH}") from None
    if not isinstance(found, _Pairs):
        raise InvalidRequest(f"the request JSON must be an object, got {_shown(found)}")
    return found


def _tensor(spec: TensorSpec, value: object) -> Tensor:
    elements = value if isinstance(value, list) and not isinstance(value, _Pairs) else [value]
    for element in elements:
        complaint = _complaint(spec.datatype, element)
        if complaint:
            raise InvalidRequest(f"Unable to parse '{spec.name}': {complaint}")
    shape = _shape(spec, len(elements))
    array = array_from_json(elements, spec.datatype, shape, f"input '{spec.name}'")
    return Tensor(name=spec.name, datatype=spec.datatype, array=array)


def _complaint(datatype: Datatype, element: object) -> str:
    """Empty for an element of the right kind."""
    kind = type(element)
    if datatype == "BYTES":
        return "" if kind is str else "attempt to access JSON non-string as string"
    if datatype == "BOOL":
        return "" if kind is bool else "attempt to access JSON non-boolean as boolean"
    if datatype.startswith(("FP", "BF")):
        is_number = kind in (int, float) or element in ("NaN", "Infinity", "-Infinity")
        return "" if is_number else "attempt to access JSON non-number as number"
    sign = "unsigned" if datatype.startswith("U") else "signed"
    is_whole = isinstance(element, int) and kind is int and (sign == "signed" or element >= 0)
    return "" if is_whole else f"attempt to access JSON non-{sign}-integer as {sign}-integer"


def _shape(spec: TensorSpec, count: int) -> tuple[int, ...]:
    """Fixed dimensions as they are; the last free one takes the elements, the others are 1."""
    left = count
    for size in spec.shape:
        if size > 0:
            left, rest = divmod(left, size)
            if rest:
                raise _misfit(spec, count)
    shape = list(spec.shape)
    for index in reversed(range(len(shape))):
        if shape[index] == -1:
            shape[index], left = left, 1
    if left != 1:
        raise _misfit(spec, count)
    return tuple(shape)


def _misfit(spec: TensorSpec, count: int) -> InvalidRequest:
    return InvalidRequest(
        f"The schema can not convert input '{spec.name}' to tensor with proper shape: {count} "
        f"elements for {list(spec.shape)}"
    )


def _shown(value: object) -> str:
    return "an object" if isinstance(value, _Pairs) else shown(value)


def encode_generated(response: InferenceResponse, request: InferenceRequest) -> bytes:
    """Each output under its own name; the only element of one stands without its array.

    Raises: InvalidRequest for an output that is no JSON (bytes that are not UTF-8).
    """
    content: dict[str, object] = {}
    if request.request_id:
        content["id"] = request.request_id
    content["model_name"] = response.model
    content["model_version"] = response.version
    for tensor in response.outputs:
        values = json_from_tensor(tensor)
        content[tensor.name] = values[0] if len(values) == 1 else values
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def event(data: bytes) -> bytes:
    """One event of a stream (`text/event-stream`)."""
    return b"data: " + data + b"\n\n"


def error_event(error: SquadronError) -> bytes:
    return event(orjson.dumps({"error": error.message or "unknown error"}))
