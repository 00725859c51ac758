"""The gRPC requests of the differential test, good and bad."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2

from tests.conformance.differential.http_cases import NUMBERS, bytes_of
from tests.conformance.differential.models import EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcCase:
    """One call. `fields` is the message as JSON; `raw` its raw_input_contents."""

    name: str
    rpc: str = "ModelInfer"
    fields: dict[str, Any] = field(default_factory=dict)
    raw: tuple[bytes, ...] = ()

    def message(self) -> Any:
        kind = "ModelInfer" if self.rpc == "ModelStreamInfer" else self.rpc
        message = ParseDict(self.fields, getattr(service_pb2, f"{kind}Request")())
        if self.raw:
            message.raw_input_contents.extend(self.raw)
        return message


def infer(name: str, model: str, inputs: list[Any], *raw: bytes, **more: Any) -> GrpcCase:
    return GrpcCase(name=name, fields={"model_name": model, "inputs": inputs, **more}, raw=raw)


def tensor(name: str, datatype: str, shape: list[int], **contents: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    return made | ({"contents": contents} if contents else {})


def typed(rows: int = 1) -> list[Any]:
    ones = [1] * 16 * rows
    return [
        tensor("INPUT0", "INT32", [rows, 16], int_contents=NUMBERS * rows),
        tensor("INPUT1", "INT32", [rows, 16], int_contents=ones),
    ]


def bare(rows: int = 1) -> list[Any]:
    return [tensor(f"INPUT{i}", "INT32", [rows, 16]) for i in (0, 1)]


RAW = np.arange(16, dtype="<i4").tobytes()
FLOATS = np.array([0.1, 0.9, 0.5, 0.2], "<f4").tobytes()
SCORES = [tensor("in", "FP32", [1, 4])]


def _with(datatype: str, contents: dict[str, Any], shape: tuple[int, ...] = (1, 2)) -> list[Any]:
    """The inputs of `every`, all typed; the one of `datatype` with these contents."""
    texts = ["", "a2FzZQ=="]
    samples: dict[str, dict[str, Any]] = {
        "BOOL": {"bool_contents": [True, False]},
        "INT64": {"int64_contents": [str(-(2**63)), "1"]},
        "UINT64": {"uint64_contents": [str(2**64 - 1), "1"]},
        "FP32": {"fp32_contents": [0.5, 1]},
        "FP64": {"fp64_contents": [0.1, 1]},
        "BYTES": {"bytes_contents": texts},
        "FP16": {},
    }
    signed, unsigned = {"int_contents": [-1, 2]}, {"uint_contents": [1, 2]}
    inputs = []
    for each in EVERY:
        usual = samples.get(each, unsigned if each.startswith("U") else signed)
        chosen = contents if each == datatype else usual
        inputs.append(
            tensor(f"in_{each}", each, list(shape if each == datatype else (1, 2)), **chosen)
        )
    return inputs


def outputs(*names: str, classification: int = 0) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if classification:
        more = {"parameters": {"classification": {"int64_param": str(classification)}}}
    return {"outputs": [{"name": name, **more} for name in names]}


def _good() -> list[GrpcCase]:
    every = [tensor(f"in_{datatype}", datatype, [1, 2]) for datatype in EVERY]
    raws = [bytes_of(datatype) for datatype in EVERY]
    parameters = {
        "a": {"string_param": "x"}, "b": {"int64_param": "1"}, "c": {"bool_param": True},
    }  # fmt: skip
    return [
        infer("typed contents", "simple", typed()),
        infer("raw contents", "simple", bare(), RAW, RAW),
        infer("a batch", "simple", typed(8)),
        infer("version 1", "simple", typed(), model_version="1"),
        infer("an id comes back", "simple", typed(), id="mine"),
        infer("parameters of every kind", "simple", typed(), parameters=parameters),
        infer("priority and timeout", "simple", typed(), parameters={
            "priority": {"uint64_param": "1"}, "timeout": {"int64_param": "10000000"}}),
        infer("one output asked for", "simple", typed(), **outputs("OUTPUT1")),
        infer("every datatype raw", "every", every, *raws),
        infer("text", "text", [tensor("in", "BYTES", [1, 2], bytes_contents=["", "AAEC/w=="])]),
        infer("no elements", "row", [tensor("in", "FP32", [1, 0])], b""),
        infer("an unbatched model", "whole", [tensor("in", "FP32", [2, 2])], FLOATS),
        infer("classification of two", "scores", SCORES, FLOATS,
              **outputs("out", classification=2)),
        GrpcCase(name="over the stream", rpc="ModelStreamInfer",
                 fields={"model_name": "simple", "inputs": typed(), "id": "7"}),
        GrpcCase(name="over the stream with an empty final response", rpc="ModelStreamInfer",
                 fields={"model_name": "simple", "inputs": typed(), "parameters": {
                     "triton_enable_empty_final_response": {"bool_param": True}}}),
    ]  # fmt: skip


def _bad() -> list[GrpcCase]:
    def changed(**changes: Any) -> list[Any]:
        first, second = typed()
        return [first | changes, second]

    short = {"int_contents": NUMBERS[:15]}
    return [
        infer("unknown model", "nothing", typed()),
        infer("no model name", "", typed()),
        infer("unknown version", "simple", typed(), model_version="9"),
        infer("version that is no number", "simple", typed(), model_version="x"),
        infer("no inputs", "simple", []),
        infer("input missing", "simple", typed()[:1]),
        infer("input too many", "simple", [*typed(), tensor("INPUT2", "INT32", [1, 1])]),
        infer("unknown input", "simple", changed(name="INPUT9")),
        infer("input without a name", "simple", changed(name="")),
        infer("input twice", "simple", [typed()[0], typed()[0]]),
        infer("wrong datatype", "simple", changed(datatype="FP32")),
        infer("unknown datatype", "simple", changed(datatype="INT128")),
        infer("no datatype", "simple", changed(datatype="")),
        infer("wrong dimension", "simple", changed(shape=[1, 15], contents=short)),
        infer("too few dimensions", "simple", changed(shape=[16])),
        infer("fewer values than the shape", "simple", changed(contents=short)),
        infer("more values than the shape", "simple",
              changed(contents={"int_contents": [*NUMBERS, 1]})),
        infer("negative dimension", "simple", changed(shape=[1, -16])),
        infer("shape overflow", "simple", changed(shape=[2**62, 16])),
        infer("zero rows", "simple", [
            tensor(f"INPUT{i}", "INT32", [0, 16]) for i in (0, 1)], b"", b""),
        infer("more rows than allowed", "simple", typed(9)),
        infer("rows that differ", "simple", [typed(2)[0], typed()[1]]),
        infer("contents of another type", "simple",
              changed(contents={"fp32_contents": [1.0] * 16})),
        infer("contents of two types", "simple",
              changed(contents={"int_contents": NUMBERS, "fp32_contents": [1.0]})),
        infer("raw and typed contents", "simple", typed(), RAW, RAW),
        infer("raw contents too few", "simple", bare(), RAW),
        infer("raw contents too many", "simple", bare(), RAW, RAW, RAW),
        infer("raw contents too short", "simple", bare(), RAW, RAW[:-1]),
        infer("raw text cut", "text", [tensor("in", "BYTES", [1, 1])], b"\xff\xff\xff\x7fx"),
        infer("raw text fewer than the shape", "text", [tensor("in", "BYTES", [1, 2])],
              b"\x01\0\0\0x"),
        infer("no contents at all", "simple", bare()),
        infer("unknown output", "simple", typed(), **outputs("OUTPUT9")),
        infer("output twice", "simple", typed(), **outputs("OUTPUT0", "OUTPUT0")),
        infer("reserved parameter prefix", "simple", typed(), parameters={
            "triton_mine": {"bool_param": True}}),
        infer("priority that is text", "simple", typed(), parameters={
            "priority": {"string_param": "high"}}),
        infer("timeout that is negative", "simple", typed(), parameters={
            "timeout": {"int64_param": "-1"}}),
        infer("classification that is negative", "scores", SCORES, FLOATS,
              **outputs("out", classification=-1)),
        infer("shared memory that is not registered", "simple", changed(contents={}, parameters={
            "shared_memory_region": {"string_param": "none"},
            "shared_memory_byte_size": {"int64_param": "64"}})),
        infer("FP16 in typed contents", "every", _with("FP16", {"fp32_contents": [1, 2]})),
        infer("INT8 beyond its range", "every", _with("INT8", {"int_contents": [300, 0]})),
        infer("the model fails", "fails", [tensor("in", "FP32", [1, 1])], b"\0\0\0\0"),
        GrpcCase(name="an error over the stream", rpc="ModelStreamInfer",
                 fields={"model_name": "nothing", "inputs": typed(), "id": "7"}),
    ]  # fmt: skip


def _management() -> list[GrpcCase]:
    def case(called: str, rpc: str, **fields: Any) -> GrpcCase:
        return GrpcCase(name=called, rpc=rpc, fields=fields)

    return [
        case("live", "ServerLive"),
        case("ready", "ServerReady"),
        case("model ready", "ModelReady", name="simple"),
        case("unknown model ready", "ModelReady", name="nothing"),
        case("unknown version ready", "ModelReady", name="simple", version="9"),
        case("server metadata", "ServerMetadata"),
        case("model metadata", "ModelMetadata", name="scores"),
        case("unbatched model metadata", "ModelMetadata", name="whole"),
        case("unknown model metadata", "ModelMetadata", name="nothing"),
        case("unknown version metadata", "ModelMetadata", name="simple", version="9"),
        case("model config", "ModelConfig", name="simple"),
        case("unknown model config", "ModelConfig", name="nothing"),
        case("statistics of an unknown model", "ModelStatistics", name="nothing"),
        case("index", "RepositoryIndex"),
        case("index of a named repository", "RepositoryIndex", repository_name="mine"),
        case("load without model control", "RepositoryModelLoad", model_name="simple"),
        case("unload without model control", "RepositoryModelUnload", model_name="simple"),
        case("trace settings", "TraceSetting"),
        case("trace settings of an unknown model", "TraceSetting", model_name="nothing"),
        case("log settings", "LogSettings"),
        case("regions", "SystemSharedMemoryStatus"),
        case("an unknown region", "SystemSharedMemoryStatus", name="none"),
        case("a region that does not exist", "SystemSharedMemoryRegister",
             name="r", key="/test_shm_of_nobody", byte_size="64"),
    ]  # fmt: skip


CASES: tuple[GrpcCase, ...] = (*_good(), *_bad(), *_management())

assert len({case.name for case in CASES}) == len(CASES)
