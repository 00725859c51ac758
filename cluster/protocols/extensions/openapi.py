"""The OpenAPI document of the HTTP door, built from the same table that answers requests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cluster.protocols.extensions.admin_schemas import ADMIN_SCHEMAS

JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. `takes` and `gives` name schemas; empty `takes`: no body.
    `is_openai`: its errors have OpenAI's shape, else V2's."""

    method: str
    path: str
    summary: str
    takes: str
    gives: str
    answers_with: str
    is_openai: bool = False


def document(
    name: str, version: str, operations: Iterable[Operation], *, base_path: str = ""
) -> JsonObject:
    """OpenAPI 3.1. `base_path` stands before every path but the probes'."""
    paths: dict[str, JsonObject] = {}
    for operation in operations:
        path = operation.path if is_probe(operation.path) else base_path + operation.path
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version},
        "paths": paths,
        "components": {"schemas": {**_SCHEMAS, **ADMIN_SCHEMAS}},
    }


def is_probe(path: str) -> bool:
    """Whether a path is the same under every `base_path`: Ray Serve's probes and the metrics."""
    return path.startswith("/-/") or path == "/metrics"


def _operation(operation: Operation) -> JsonObject:
    content: JsonObject = {}
    if operation.gives:
        content = {"content": {operation.answers_with: {"schema": _ref(operation.gives)}}}
    error = "OpenAIError" if operation.is_openai else "Error"
    responses: JsonObject = {
        "200": {"description": "The answer.", **content},
        "default": {
            "description": "What is wrong, and who can mend it.",
            "content": {"application/json": {"schema": _ref(error)}},
        },
    }
    if operation.gives == "Accepted":
        responses["202"] = {"description": "Kept by this door for now.", **content}
    if operation.takes == "JobRequest":
        responses["202"] = {"description": "Taken; ask for it by its id.", **content}
        del responses["200"]
    described: JsonObject = {
        "summary": operation.summary,
        "operationId": _identifier(operation),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", operation.path)
        ],
        "responses": responses,
    }
    if operation.takes:
        described["requestBody"] = _body(operation.takes)
    return described


_REQUIRED = (
    "InferRequest", "GenerateRequest", "Region", "CudaRegion", "Weights", "Feedback", "JobRequest",
    "StoreName",
)  # fmt: skip


def _body(schema: str) -> JsonObject:
    content: JsonObject = {"application/json": {"schema": _ref(schema)}}
    if schema in ("InferRequest", "JobRequest"):
        # JSON with binary tensors behind it, or the model's only input as it is.
        content["application/octet-stream"] = {"schema": {}}
    return {"required": schema in _REQUIRED, "content": content}


def _identifier(operation: Operation) -> str:
    words = re.findall(r"\w+", operation.path)
    return "_".join([operation.method.lower(), *words]) if words else operation.method.lower()


def _ref(schema: str) -> JsonObject:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(required: tuple[str, ...] = (), **properties: JsonObject) -> JsonObject:
    found: JsonObject = {"type": "object", "properties": properties}
    return {**found, "required": list(required)} if required else found


_TEXT: JsonObject = {"type": "string"}
_MAYBE_TEXT: JsonObject = {"type": ["string", "null"]}
_FLAG: JsonObject = {"type": "boolean"}
_COUNT: JsonObject = {"type": "integer", "minimum": 0}
_PARAMETERS: JsonObject = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_SHAPE: JsonObject = {"type": "array", "items": {"type": "integer"}}
_TENSOR = {"name": _TEXT, "datatype": _TEXT, "shape": _SHAPE, "parameters": _PARAMETERS}
_TENSOR_FACTS: JsonObject = {"type": "array", "items": _ref("TensorMetadata")}

_SCHEMAS: JsonObject = {
    "Object": {"type": "object"},
    "Text": _TEXT,
    "Error": _object(("error",), error=_TEXT),
    "OpenAIError": _object(
        ("error",),
        error=_object(
            ("message", "type", "param", "code"),
            message=_TEXT,
            type=_TEXT,
            param=_MAYBE_TEXT,
            code={"type": ["string", "integer", "null"]},
        ),
    ),
    "Live": _object(("live",), live=_FLAG),
    "Ready": _object(("ready",), ready=_FLAG),
    "ModelReady": _object(("name", "ready"), name=_TEXT, ready=_FLAG),
    "Server": _object(
        ("name", "version", "extensions"),
        name=_TEXT,
        version=_TEXT,
        extensions={"type": "array", "items": _TEXT},
    ),
    "TensorMetadata": _object(
        ("name", "datatype", "shape"), name=_TEXT, datatype=_TEXT, shape=_SHAPE
    ),
    "Model": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_TEXT,
        versions={"type": "array", "items": _TEXT},
        platform=_TEXT,
        inputs=_TENSOR_FACTS,
        outputs=_TENSOR_FACTS,
    ),
    "Tensor": _object(("name", "datatype", "shape"), **_TENSOR, data={"type": "array"}),
    "RequestedOutput": _object(("name",), name=_TEXT, parameters=_PARAMETERS),
    "InferRequest": _object(
        ("inputs",),
        id=_TEXT,
        parameters=_PARAMETERS,
        inputs={"type": "array", "items": _ref("Tensor")},
        outputs={"type": "array", "items": _ref("RequestedOutput")},
    ),
    "InferResponse": _object(
        ("model_name", "model_version", "outputs"),
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        parameters=_PARAMETERS,
        outputs={"type": "array", "items": _ref("Tensor")},
    ),
    "GenerateRequest": {"type": "object", "additionalProperties": True},
    "Generated": _object(("model_name", "model_version"), model_name=_TEXT, model_version=_TEXT),
    "IndexRequest": _object(ready=_FLAG),
    "Index": {
        "type": "array",
        "items": _object(
            ("name", "version", "state", "reason"),
            name=_TEXT,
            version=_TEXT,
            state=_TEXT,
            reason=_TEXT,
        ),
    },
    "Statistics": _object(
        ("model_stats",), model_stats={"type": "array", "items": {"type": "object"}}
    ),
    "Settings": {"type": "object", "additionalProperties": True},
    "Region": _object(("key", "byte_size"), key=_TEXT, offset=_COUNT, byte_size=_COUNT),
    "CudaRegion": _object(
        ("raw_handle", "byte_size"),
        raw_handle=_object(("b64",), b64=_TEXT),
        device_id=_COUNT,
        byte_size=_COUNT,
    ),
    "Regions": {"type": "array", "items": {"type": "object"}},
}
