"""Open Inference Protocol V2 over gRPC: message bytes in, message bytes out.

Tensors in `raw_input_contents` become views on the parsed message's bytes; answers always use
`raw_output_contents`. FP16 and BF16 travel raw only: the protocol has no typed field for them.
Source: protocol sections 5.2 to 5.6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from cluster.errors import InvalidRequest, SquadronError
from cluster.protocols import v2_model
from cluster.protocols.extensions.shared_memory import (
    DISABLED,
    InputRegions,
    Places,
    array_in_region,
    check_output,
    place_of,
    write_output,
)
from cluster.protocols.grpc_schema import (
    METHODS,
    SERVICE,
    message_class,
)
from cluster.protocols.v2_binary import array_from_bytes, bytes_from_tensor
from cluster.protocols.v2_classification import classes_of
from cluster.protocols.v2_fields import (
    MAX_NAME_LENGTH,
    bool_parameter,
    check_reserved,
    datatype_field,
    name_field,
    parameters_field,
    refuse_duplicates,
    shape_field,
    uint_parameter,
)
from cluster.protocols.v2_model import ModelDescription
from cluster.requests import (
    InferenceRequest,
    InferenceResponse,
    Parameter,
    RegionSlice,
    RequestedOutput,
)
from cluster.tensors import NUMPY_DTYPES, Array, Datatype, Tensor, bytes_array

__all__ = ["METHODS", "SERVICE"]

_InferRequest = message_class("inference.ModelInferRequest")
_InferResponse = message_class("inference.ModelInferResponse")
_StreamResponse = message_class("inference.ModelStreamInferResponse")
_ModelConfig = message_class("inference.ModelConfig")

_NO_LABELS: Mapping[str, Sequence[str]] = {}
EMPTY_FINAL = "triton_enable_empty_final_response"
"""The one reserved `triton_` parameter that gRPC clients may send."""

_CONTENTS_OF: dict[Datatype, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def contents_field(datatype: Datatype) -> str:
    """The field of `InferTensorContents` for a datatype; empty for those that travel raw only."""
    return _CONTENTS_OF.get(datatype, "")


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        name = kind.DESCRIPTOR.name
        raise InvalidRequest(f"failed to parse {len(data)} bytes as {name}: {error}") from None


def decode_infer(data: bytes, regions: InputRegions = DISABLED) -> InferenceRequest:
    """The request in the bytes of a `ModelInferRequest`; its tensors may be in `regions`.

    Raises: InvalidRequest naming the tensor, what was expected and what came; what `regions` raise.
    """
    message = _parsed(_InferRequest, data)
    model = message.model_name
    parameters: dict[str, Parameter] = {}
    if message.parameters:
        parameters = _parameters(message.parameters, "the request", allowed=EMPTY_FINAL)
    inputs = _inputs(message, model, regions)
    refuse_duplicates([item.name for item in inputs], "input")
    outputs = tuple([_requested(entry, regions) for entry in message.outputs])
    refuse_duplicates([output.name for output in outputs], "output")
    return InferenceRequest(
        model=model,
        version=message.model_version,
        request_id=message.id,
        inputs=inputs,
        outputs=outputs,
        parameters=parameters,
        priority=check_reserved(parameters),
    )


def _parameters(entries: Any, what: str, allowed: str = "") -> dict[str, Parameter]:
    values: dict[str, Any] = {}
    for key, entry in entries.items():
        choice = entry.WhichOneof("parameter_choice")
        values[key] = None if choice is None else getattr(entry, choice)
    special = {allowed: values.pop(allowed)} if allowed in values else {}
    return {**parameters_field(values, what), **special}


def _inputs(message: Any, model: str, regions: InputRegions) -> tuple[Tensor, ...]:
    """Buffers belong to the inputs that are not in shared memory, in their order."""
    raw = message.raw_input_contents
    places = [_place(entry, model) for entry in message.inputs]
    if raw and len(raw) != places.count(None):
        raise InvalidRequest(
            f"raw_input_contents for model '{model}' must have one buffer for each of the "
            f"{places.count(None)} inputs that are not in shared memory, got {len(raw)}"
        )
    buffers = iter(raw)
    read = partial(regions.read_input, model, message.model_version)
    return tuple(
        [
            _input(entry, next(buffers, None) if place is None else None, place, model, read)
            for entry, place in zip(message.inputs, places, strict=True)
        ]
    )


def _place(entry: Any, model: str) -> RegionSlice | None:
    if not entry.parameters:
        return None
    what = f"input '{entry.name[:MAX_NAME_LENGTH]}' for model '{model}'"
    return place_of(_parameters(entry.parameters, what), what)


def _input(
    entry: Any,
    raw: bytes | None,
    place: RegionSlice | None,
    model: str,
    read: Callable[[str, RegionSlice], bytes],
) -> Tensor:
    name = name_field(entry.name, "'name' of an input")
    what = f"input '{name}' for model '{model}'"
    datatype = datatype_field(entry.datatype, what)
    shape = shape_field(list(entry.shape), what)
    if place is not None:
        if entry.HasField("contents"):
            raise InvalidRequest(f"contents of {what} must not be set: it is in shared memory")
        array = array_in_region(place, datatype, shape, name, read)
    elif raw is None:
        array = _typed(entry, datatype, shape, what)
    elif entry.HasField("contents"):
        raise InvalidRequest(
            f"contents field must not be specified when using raw_input_contents for '{name}' "
            f"for model '{model}'"
        )
    else:
        array = array_from_bytes(raw, datatype, shape, what)
    return Tensor(name=name, datatype=datatype, array=array)


def _typed(entry: Any, datatype: Datatype, shape: tuple[int, ...], what: str) -> Array:
    """An array from the typed field that belongs to the datatype; no other may be set."""
    field = _CONTENTS_OF.get(datatype)
    if field is None:
        raise InvalidRequest(f"{datatype} has no typed contents: send {what} in raw_input_contents")
    found = [descriptor.name for descriptor, _ in entry.contents.ListFields()]
    if any(name != field for name in found):
        raise InvalidRequest(
            f"contents of {what}: {datatype} belongs in {field}, got {', '.join(found)}"
        )
    items = getattr(entry.contents, field)
    count = 1
    for dim in shape:
        count *= dim
    if len(items) != count:
        raise InvalidRequest(
            f"contents of {what}: {field} has {len(items)} elements, shape {list(shape)} needs "
            f"{count}"
        )
    if datatype == "BYTES":
        return bytes_array(list(items), shape)
    dtype = NUMPY_DTYPES[datatype]
    try:
        return np.array(list(items), dtype).reshape(shape)
    except OverflowError as error:
        raise InvalidRequest(f"contents of {what}: out of range for {datatype}: {error}") from None


def _requested(entry: Any, regions: InputRegions) -> RequestedOutput:
    name = name_field(entry.name, "'name' of an output")
    if not entry.parameters:
        return RequestedOutput(name=name)
    what = f"output '{name}'"
    parameters = _parameters(entry.parameters, what)
    output = RequestedOutput(
        name=name,
        is_binary=bool_parameter(parameters, "binary_data", what),
        num_classes=uint_parameter(parameters, "classification", what) or 0,
        place=place_of(parameters, what),
    )
    return check_output(output, regions)


def encode_infer(
    response: InferenceResponse,
    request: InferenceRequest,
    *,
    class_labels: Mapping[str, Sequence[str]] = _NO_LABELS,
    places: Places = DISABLED,
) -> bytes:
    """The bytes of a `ModelInferResponse`; the parameter `squadron_variant` names who computed it.

    `class_labels`: output name -> labels, for the classification extension. Outputs that the caller
    wants in shared memory are written to `places`.
    """
    message = _infer_response(response, request, class_labels, places)
    data: bytes = message.SerializeToString()
    return data


def _infer_response(
    response: InferenceResponse,
    request: InferenceRequest,
    class_labels: Mapping[str, Sequence[str]],
    places: Places,
) -> Any:
    message = _InferResponse(
        model_name=response.model, model_version=response.version, id=request.request_id
    )
    parameters = response.parameters
    if response.variant:
        parameters = {"squadron_variant": response.variant, **parameters}
    for key, value in parameters.items():
        _set_parameter(message.parameters[key], value)
    asked = {output.name: output for output in request.outputs}
    for tensor in response.outputs:
        wanted = asked.get(tensor.name)
        if wanted is not None and wanted.num_classes:
            labels = class_labels.get(tensor.name, ())
            tensor = classes_of(tensor, wanted.num_classes, labels)
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        data = bytes_from_tensor(tensor)
        if wanted is not None and wanted.place is not None:
            written = write_output(wanted.place, tensor.name, data, places)
            for key, value in written.items():
                _set_parameter(output.parameters[key], value)
            # Clients find an output's buffer by its number: this one's is empty.
            data = b""
        message.raw_output_contents.append(bytes(data))
    return message


def _set_parameter(entry: Any, value: Parameter) -> None:
    match value:
        case bool():
            entry.bool_param = value
        case int() if value >= 2**63:
            entry.uint64_param = value
        case int():
            entry.int64_param = value
        case float():
            entry.double_param = value
        case str():
            entry.string_param = value


def encode_stream_infer(
    response: InferenceResponse,
    request: InferenceRequest,
    places: Places = DISABLED,
    *,
    is_final: bool = True,
) -> bytes:
    """One message of `ModelStreamInfer`; of an ordinary model it is the request's only one."""
    answer = _infer_response(response, request, _NO_LABELS, places)
    answer.parameters["triton_final_response"].bool_param = is_final
    data: bytes = _StreamResponse(infer_response=answer).SerializeToString()
    return data


def encode_stream_end(request: InferenceRequest, version: str) -> bytes:
    """An empty last response: the decoupled model has no more for this request."""
    answer = _InferResponse(model_name=request.model, model_version=version, id=request.request_id)
    answer.parameters["triton_final_response"].bool_param = True
    data: bytes = _StreamResponse(infer_response=answer).SerializeToString()
    return data


def encode_stream_error(
    error: SquadronError, request_id: str = "", told: Sequence[tuple[str, str]] = ()
) -> bytes:
    """An error of one request; the stream stays open. `told`: what headers would tell of it."""
    message = _StreamResponse(error_message=error.message or "unknown error")
    if request_id:
        message.infer_response.id = request_id
    for header, value in told:
        name = f"squadron_{header.removeprefix('x-').removeprefix('squadron-').replace('-', '_')}"
        message.infer_response.parameters[name].string_param = value
    data: bytes = message.SerializeToString()
    return data


def decode_model_name(method: str, data: bytes) -> tuple[str, str]:
    """Name and version ("": none given) from a request of ModelReady, ModelMetadata, ModelConfig…

    Raises: InvalidRequest.
    """
    message = _parsed(METHODS[method].request, data)
    return message.name, message.version


def decode_subject(method: str, data: bytes) -> str:
    """The name of the model or region that a request is about, as far as one can be read from it:
    "" for what concerns the server, and for what is no request of this method."""
    try:
        message = METHODS[method].request.FromString(data)
    except DecodeError:
        return ""
    return str(getattr(message, "model_name", "") or getattr(message, "name", ""))


def decode_repository_index(data: bytes) -> bool:
    """Whether only ready models are asked for. Raises: InvalidRequest."""
    return bool(_parsed(METHODS["RepositoryIndex"].request, data).ready)


def _answer(method: str, **fields: Any) -> bytes:
    data: bytes = METHODS[method].response(**fields).SerializeToString()
    return data


def encode_json(method: str, content: dict[str, object]) -> bytes:
    """An answer in the JSON form of its message, as the HTTP door gives it."""
    data: bytes = json_format.ParseDict(content, METHODS[method].response()).SerializeToString()
    return data


def encode_server_live(is_live: bool) -> bytes:
    return _answer("ServerLive", live=is_live)


def encode_server_ready(is_ready: bool) -> bytes:
    return _answer("ServerReady", ready=is_ready)


def encode_model_ready(is_ready: bool) -> bytes:
    return _answer("ModelReady", ready=is_ready)


def encode_server_metadata(name: str, version: str, extensions: Sequence[str]) -> bytes:
    return _answer("ServerMetadata", name=name, version=version, extensions=extensions)


def encode_model_metadata(model: ModelDescription) -> bytes:
    return _answer("ModelMetadata", **v2_model.model_metadata(model))


def encode_model_config(model: ModelDescription) -> bytes:
    """The same configuration as over HTTP, read from its JSON form."""
    config = _ModelConfig()
    json_format.ParseDict(v2_model.model_config(model), config)
    return _answer("ModelConfig", config=config)


def encode_repository_index(entries: Iterable[Mapping[str, str]]) -> bytes:
    """`entries` have the keys name, version, state and reason."""
    return _answer("RepositoryIndex", models=[dict(entry) for entry in entries])
