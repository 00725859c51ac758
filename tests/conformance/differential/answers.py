"""What is compared of two servers' answers, and how their differences are told."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2_grpc

from tests.conformance.differential.grpc_cases import GrpcCase
from tests.conformance.differential.http_cases import HEADER, HttpCase

NO_REQUEST_ID = "[request id: <id_unknown>] "
OUR_PARAMETER = "squadron_variant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`status` is an HTTP status or a gRPC code. `body` is plain JSON values, None for an error.

    `marks`: what was taken out of the answer before it was compared (see `deviations.EVERYWHERE`).
    """

    status: str
    kind: str = ""
    body: Any = None
    error: str = ""
    order: tuple[str, ...] = ()
    marks: frozenset[str] = frozenset()

    def shown(self) -> str:
        what = self.error or json.dumps(self.body, default=str)
        return " ".join(f"{self.status} {self.kind} {what}".split())[:400]


def ask_http(url: str, case: HttpCase) -> Answer:
    with httpx.Client(base_url=url, timeout=30) as client:
        reply = client.request(
            case.method, case.path, content=case.body, headers=case.headers or None
        )
    if reply.status_code >= 400:
        return _refusal(str(reply.status_code), _error_text(reply))
    kind = reply.headers.get("content-type", "").partition(";")[0]
    body, marks, order = _compared(_body(reply))
    return Answer(status=str(reply.status_code), kind=kind, body=body, order=order, marks=marks)


def ask_grpc(address: str, case: GrpcCase) -> Answer:
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            if case.rpc == "ModelStreamInfer":
                found: Any = [
                    _as_dict(each) for each in stub.ModelStreamInfer(iter([case.message()]))
                ]
            else:
                found = _as_dict(getattr(stub, case.rpc)(case.message(), timeout=30))
        except grpc.RpcError as error:
            return _refusal(error.code().name, error.details() or "")
    body, marks, order = _compared(found)
    return Answer(status="OK", body=body, order=order, marks=marks)


def _as_dict(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True)


def _refusal(status: str, text: str) -> Answer:
    bare = text.removeprefix(NO_REQUEST_ID)
    marks = {"no-request-id"} if bare != text else set()
    return Answer(status=status, error=bare or "(no text)", marks=frozenset(marks))


def _error_text(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"(not an error of the protocol: {reply.content[:80]!r})"


def _body(reply: httpx.Response) -> Any:
    length = reply.headers.get(HEADER)
    if length is None:
        return _json(reply.content)
    head, tail = _json(reply.content[: int(length)]), reply.content[int(length) :]
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        output["binary"], tail = tail[:size].hex(), tail[size:]
    return head | {"left over": tail.hex()}


def _json(content: bytes) -> Any:
    if not content:
        return ""
    try:
        return json.loads(content)
    except ValueError:
        return f"(no JSON: {content!r})"


def _compared(body: Any) -> tuple[Any, frozenset[str], tuple[str, ...]]:
    """A body without what only ours has, its outputs by name; the names in their order.

    JSON numbers of FP32 are compared as FP32: 0.1 and 0.10000000149011612 are the same.
    """
    if (
        isinstance(body, list)
        and body
        and isinstance(body[0], dict)
        and "infer_response" in body[0]
    ):
        parts = [_compared(each.get("infer_response", {})) for each in body]
        merged = [
            each | {"infer_response": part[0]} for each, part in zip(body, parts, strict=True)
        ]
        return merged, frozenset().union(*(part[1] for part in parts)), ()
    if not isinstance(body, dict):
        return body, frozenset(), ()
    made, marks, order = dict(body), frozenset[str](), ()
    parameters = made.get("parameters")
    if isinstance(parameters, dict) and OUR_PARAMETER in parameters:
        marks = frozenset({"variant-parameter"})
        made["parameters"] = {k: v for k, v in parameters.items() if k != OUR_PARAMETER}
        if not made["parameters"]:
            del made["parameters"]
    outputs = made.get("outputs")
    if "model_name" in made and isinstance(outputs, list):
        order = tuple(output["name"] for output in outputs)
        raws = made.pop("raw_output_contents", [None] * len(outputs))
        entries = [
            output | _numbers(output) | ({"raw": raw} if raw is not None else {})
            for output, raw in zip(outputs, raws, strict=True)
        ]
        made["outputs"] = {entry["name"]: entry for entry in entries}
    return made, marks, order


def _numbers(output: dict[str, Any]) -> dict[str, Any]:
    if output.get("datatype") != "FP32" or "data" not in output:
        return {}
    return {"data": [repr(np.float32(number)) for number in output["data"]]}


def differences(triton: Answer, ours: Answer) -> frozenset[str]:
    """The fields that differ. Errors need not have one wording: whatever names Triton's text
    quotes, ours must name as well."""
    found = {
        field
        for field in ("status", "kind", "body", "order")
        if getattr(triton, field) != getattr(ours, field)
    }
    if bool(triton.error) == bool(ours.error):
        missing = [name for name in _quoted(triton.error) if name not in ours.error]
        found |= {"error"} if missing else set()
    elif "status" in found:
        found -= {"body", "kind", "order"}
    return frozenset(found)


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']+)'", text)
