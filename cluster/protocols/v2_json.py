"""Open Inference Protocol V2 over HTTP: JSON, with tensors in JSON or behind it in binary.

    body = JSON | binary tensors, in the order of the inputs that have `binary_data_size`

Request decoding gives numpy views on the body wherever it can. Bare NaN and Infinity are no JSON
and are refused; see `v2_numbers` for how such values travel. An optional field that is null counts
as absent, because clients made from schemas send it so.
Source: protocol sections 5.4 to 5.8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from cluster.errors import InvalidRequest, SquadronError
from cluster.protocols.extensions.shared_memory import (
    DISABLED,
    InputRegions,
    Places,
    array_in_region,
    check_output,
    place_of,
    write_output,
)
from cluster.protocols.v2_binary import array_from_bytes, bytes_from_tensor
from cluster.protocols.v2_classification import classes_of
from cluster.protocols.v2_fields import (
    bool_parameter,
    check_reserved,
    datatype_field,
    name_field,
    parameters_field,
    refuse_duplicates,
    shape_field,
    shown,
    text_field,
    uint_parameter,
)
from cluster.protocols.v2_numbers import array_from_json, json_from_tensor
from cluster.requests import InferenceRequest, InferenceResponse, Parameter, RequestedOutput
from cluster.tensors import NUMPY_DTYPES, Signature, Tensor, TensorSpec, bytes_array

JSON = "application/json"
BINARY = "application/octet-stream"
MAX_DEPTH = 100
"""Nesting of JSON, the outermost object counted."""

_REQUEST_KEYS = frozenset({"id", "parameters", "inputs", "outputs"})
_INPUT_KEYS = frozenset({"name", "datatype", "shape", "parameters", "data"})
_HOW_MANY = ("all of them", "both", "one", "neither")
_NO_LABELS: Mapping[str, Sequence[str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedResponse:
    """`chunks` one after the other are the body.

    `json_length` is the value of the Inference-Header-Content-Length field; None: send no field.
    """

    chunks: tuple[bytes | memoryview, ...]
    content_type: str
    json_length: int | None


def decode_infer(
    body: bytes | memoryview,
    *,
    json_length: int | None,
    model: str,
    version: str,
    regions: InputRegions = DISABLED,
) -> InferenceRequest:
    """The request in a body.

    `json_length` is the Inference-Header-Content-Length; None: the whole body is JSON. A length of
    0 means a raw body, which only `decode_raw` can read. The reserved parameters `priority` and
    `timeout` (microseconds) are checked and stay in `parameters`. `regions`: the shared memory that
    tensors may be in.
    Raises: InvalidRequest naming the tensor, what was expected and what came; what `regions` raise.
    """
    message, tail = _parts(body, json_length)
    if not message.keys() <= _REQUEST_KEYS:
        for key in message.keys() - _REQUEST_KEYS:
            _check_depth(message[key], MAX_DEPTH - 1)
    parameters: dict[str, Parameter] = {}
    priority = 0
    if message.get("parameters") is not None:
        parameters = parameters_field(message["parameters"], "the request")
        priority = check_reserved(parameters)
    entries = message.get("inputs")
    if type(entries) is not list:
        found = shown(entries) if "inputs" in message else "nothing"
        raise InvalidRequest(f"'inputs' must be an array of tensors, got {found}")
    tensors = _Tensors(tail, model, version, regions)
    inputs = tuple([tensors.take(entry) for entry in entries])
    tensors.check_all_taken()
    refuse_duplicates([item.name for item in inputs], "input")
    return InferenceRequest(
        model=model,
        version=version,
        request_id="" if message.get("id") is None else text_field(message["id"], "'id'"),
        inputs=inputs,
        outputs=() if message.get("outputs") is None else _outputs(message["outputs"], regions),
        parameters=parameters,
        priority=priority,
    )


def _parts(
    body: bytes | memoryview, json_length: int | None
) -> tuple[dict[str, Any], memoryview | None]:
    """The JSON object and the binary part (None without the header field)."""
    text, tail = body, None
    if json_length is not None:
        if json_length <= 0 or json_length > len(body):
            raise InvalidRequest(
                f"Inference-Header-Content-Length must be from 1 to the body's length "
                f"({len(body)} bytes) for a JSON request, got {json_length}"
            )
        view = memoryview(body)
        text, tail = view[:json_length], view[json_length:]
    if not len(text):
        raise InvalidRequest("the body is empty, expected a JSON object with 'inputs'")
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        hint = ""
        if any(token in bytes(text) for token in (b"NaN", b"Infinity")):
            hint = '; NaN and Infinity are no JSON: send "NaN", "Infinity" (strings), or binary'
        raise InvalidRequest(f"failed to parse the request JSON: {error}{hint}") from None
    if type(message) is not dict:
        raise InvalidRequest(f"the request JSON must be an object, got {shown(message)}")
    return message, tail


def _check_depth(value: object, left: int) -> None:
    """Walks level by level: linear, and no recursion of our own."""
    level = [value]
    while level := [item for item in level if isinstance(item, list | dict)]:
        if left <= 0:
            raise InvalidRequest(f"JSON nesting depth exceeds the limit of {MAX_DEPTH}")
        left -= 1
        level = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]


class _Tensors:
    """Takes one input after the other, binary ones from the front of what is left."""

    def __init__(
        self, tail: memoryview | None, model: str, version: str, regions: InputRegions
    ) -> None:
        self._tail = tail
        self._at = 0
        self._model = model
        self._read = partial(regions.read_input, model, version)

    def take(self, entry: object) -> Tensor:
        if type(entry) is not dict:
            raise InvalidRequest(f"each of 'inputs' must be an object, got {shown(entry)}")
        name = name_field(entry.get("name"), "'name' of an input")
        what = f"input '{name}' for model '{self._model}'"
        datatype = datatype_field(entry.get("datatype"), what)
        shape = shape_field(entry.get("shape"), what)
        if not entry.keys() <= _INPUT_KEYS:
            for key in entry.keys() - _INPUT_KEYS:
                _check_depth(entry[key], MAX_DEPTH - 3)
        parameters: dict[str, Parameter] = {}
        if entry.get("parameters") is not None:
            parameters = parameters_field(entry["parameters"], what)
        size = uint_parameter(parameters, "binary_data_size", what)
        place = place_of(parameters, what) if parameters else None
        sources = (entry.get("data"), size, place)
        if sources.count(None) != 2:
            raise InvalidRequest(
                f"{what} must have exactly one of 'data' and the parameters 'binary_data_size' and "
                f"'shared_memory_region', got {_HOW_MANY[sources.count(None)]}"
            )
        if size is not None:
            array = array_from_bytes(self._next(size, what), datatype, shape, what)
        elif place is not None:
            array = array_in_region(place, datatype, shape, name, self._read)
        else:
            array = array_from_json(entry["data"], datatype, shape, what)
        return Tensor(name=name, datatype=datatype, array=array)

    def _next(self, size: int, what: str) -> memoryview:
        if self._tail is None:
            raise InvalidRequest(
                f"{what} has 'binary_data_size', which needs the header field "
                "Inference-Header-Content-Length"
            )
        left = len(self._tail) - self._at
        if size > left:
            raise InvalidRequest(
                f"the body ends too early for {what}: expected {size} bytes of binary data, "
                f"got {left}"
            )
        self._at += size
        return self._tail[self._at - size : self._at]

    def check_all_taken(self) -> None:
        left = len(self._tail) - self._at if self._tail is not None else 0
        if left:
            raise InvalidRequest(
                f"unexpected {left} bytes after the last input for model '{self._model}': the "
                f"inputs' 'binary_data_size' add up to {self._at}, got {self._at + left}"
            )


def _outputs(value: object, regions: InputRegions) -> tuple[RequestedOutput, ...]:
    if type(value) is not list:
        raise InvalidRequest(f"'outputs' must be an array, got {shown(value)}")
    outputs = tuple([_requested(entry, regions) for entry in value])
    refuse_duplicates([output.name for output in outputs], "output")
    return outputs


def _requested(entry: object, regions: InputRegions) -> RequestedOutput:
    if type(entry) is not dict:
        raise InvalidRequest(f"each of 'outputs' must be an object, got {shown(entry)}")
    name = name_field(entry.get("name"), "'name' of an output")
    if not entry.keys() <= _INPUT_KEYS:
        for key in entry.keys() - _INPUT_KEYS:
            _check_depth(entry[key], MAX_DEPTH - 3)
    if entry.get("parameters") is None:
        return RequestedOutput(name=name)
    what = f"output '{name}'"
    parameters = parameters_field(entry["parameters"], what)
    output = RequestedOutput(
        name=name,
        is_binary=bool_parameter(parameters, "binary_data", what),
        num_classes=uint_parameter(parameters, "classification", what) or 0,
        place=place_of(parameters, what),
    )
    return check_output(output, regions)


def decode_raw(
    body: bytes | memoryview, model: str, version: str, signature: Signature
) -> InferenceRequest:
    """A body that is nothing but the model's only input (Inference-Header-Content-Length: 0).

    A BYTES input takes the whole body as its one element, without a length. Of other inputs one
    dimension may be dynamic and is found from the body's size; if two are and the first is the
    batch, the batch is 1. The answer to such a request is binary.
    Raises: InvalidRequest when the model or the body does not allow it.
    """
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            f"a raw binary body needs a model with exactly 1 input, model '{model}' has "
            f"{len(signature.inputs)}"
        )
    spec = signature.inputs[0]
    if spec.datatype == "BYTES":
        array = bytes_array([bytes(body)], _shape_of_one(spec, model))
    else:
        what = f"input '{spec.name}' for model '{model}'"
        array = array_from_bytes(body, spec.datatype, _raw_shape(spec, len(body), what), what)
    tensor = Tensor(name=spec.name, datatype=spec.datatype, array=array)
    return InferenceRequest(model=model, version=version, inputs=(tensor,))


def _shape_of_one(spec: TensorSpec, model: str) -> tuple[int, ...]:
    if any(dim not in (-1, 1) for dim in spec.shape):
        raise InvalidRequest(
            f"a raw binary body is one BYTES element; input '{spec.name}' for model '{model}' has "
            f"shape {list(spec.shape)}"
        )
    return (1,) * len(spec.shape)


def _raw_shape(spec: TensorSpec, num_bytes: int, what: str) -> tuple[int, ...]:
    dims = list(spec.shape)
    if dims.count(-1) == 2 and dims[0] == -1:
        dims[0] = 1
    if dims.count(-1) > 1:
        raise InvalidRequest(
            f"a raw binary body allows one dynamic dimension, {what} has shape {list(spec.shape)}"
        )
    if -1 in dims:
        row = NUMPY_DTYPES[spec.datatype].itemsize
        for dim in dims:
            row *= dim if dim != -1 else 1
        if row == 0 or num_bytes % row:
            raise InvalidRequest(
                f"input byte size mismatch for {what}. Expected a multiple of {row} bytes for "
                f"{spec.datatype} {list(spec.shape)}, got {num_bytes}"
            )
        dims[dims.index(-1)] = num_bytes // row
    return tuple(dims)


def encode_infer(
    response: InferenceResponse,
    request: InferenceRequest,
    *,
    binary_default: bool = False,
    class_labels: Mapping[str, Sequence[str]] = _NO_LABELS,
    places: Places = DISABLED,
) -> EncodedResponse:
    """The body of an answer. Outputs that the caller wants in shared memory are written there.

    An output is binary by its own `binary_data`, else by the request's `binary_data_output`, else
    by `binary_default`. `class_labels`: output name -> labels, for the classification extension.
    Raises: InvalidRequest for an output that cannot be sent the way the caller asked.
    """
    asked = {output.name: output for output in request.outputs}
    is_binary = bool(request.parameters.get("binary_data_output", binary_default))
    outputs: list[dict[str, object]] = []
    chunks: list[bytes | memoryview] = []
    for tensor in response.outputs:
        wanted = asked.get(tensor.name)
        if wanted is not None and wanted.num_classes:
            labels = class_labels.get(tensor.name, ())
            tensor = classes_of(tensor, wanted.num_classes, labels)
        entry: dict[str, object] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        choice = wanted.is_binary if wanted is not None else None
        if wanted is not None and wanted.place is not None:
            data = bytes_from_tensor(tensor)
            entry["parameters"] = write_output(wanted.place, tensor.name, data, places)
        elif choice if choice is not None else is_binary:
            chunk = bytes_from_tensor(tensor)
            entry["parameters"] = {"binary_data_size": len(chunk)}
            chunks.append(chunk)
        else:
            entry["data"] = json_from_tensor(tensor)
        outputs.append(entry)
    text = orjson.dumps(_head(response, request, outputs), option=orjson.OPT_SERIALIZE_NUMPY)
    has_binary = len(chunks) > 0
    return EncodedResponse(
        chunks=(text, *chunks),
        content_type=BINARY if has_binary else JSON,
        json_length=len(text) if has_binary else None,
    )


def _head(
    response: InferenceResponse, request: InferenceRequest, outputs: list[dict[str, object]]
) -> dict[str, object]:
    head: dict[str, object] = {"model_name": response.model, "model_version": response.version}
    if request.request_id:
        head["id"] = request.request_id
    if response.parameters:
        head["parameters"] = response.parameters
    head["outputs"] = outputs
    return head


def error_body(error: SquadronError) -> bytes:
    """`{"error": text}`, the only shape of an error in V2."""
    return orjson.dumps({"error": error.message or "unknown error"})
