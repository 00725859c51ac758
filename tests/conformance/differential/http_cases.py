"""The HTTP requests of the differential test, good and bad."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.tensors import NUMPY_DTYPES, Datatype
from tests.conformance.differential.models import EVERY

HEADER = "inference-header-content-length"
JSON = "application/json"
RAW = {HEADER: "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCase:
    """One request. `name` is what a deviation refers to."""

    name: str
    method: str = "POST"
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def infer(name: str, model: str, message: Any, tail: bytes = b"", **headers: str) -> HttpCase:
    """JSON with `tail` behind it; the header that says so is sent when there is a tail."""
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    if tail and HEADER not in named:
        named[HEADER] = str(len(text))
    return HttpCase(
        name=name,
        path=f"/v2/models/{model}/infer",
        headers={"content-type": "application/octet-stream" if tail else JSON} | named,
        body=text + tail,
    )


def get(name: str, path: str) -> HttpCase:
    return HttpCase(name=name, method="GET", path=path)


def tensor(name: str, datatype: str, shape: Any, data: Any = None, **more: Any) -> dict[str, Any]:
    made = {"name": name, "datatype": datatype, "shape": shape, **more}
    return made if data is None else made | {"data": data}


NUMBERS = list(range(16))


def simple(rows: int = 1, **more: Any) -> dict[str, Any]:
    first = tensor("INPUT0", "INT32", [rows, 16], NUMBERS * rows)
    second = tensor("INPUT1", "INT32", [rows, 16], [1] * 16 * rows)
    return {"inputs": [first, second], **more}


def row(*values: Any, **more: Any) -> dict[str, Any]:
    return {"inputs": [tensor("in", "FP32", [1, len(values)], list(values))], **more}


def outputs(*names: str, **parameters: Any) -> dict[str, Any]:
    more = {"parameters": parameters} if parameters else {}
    return {"outputs": [{"name": name, **more} for name in names]}


_SAMPLES: dict[Datatype, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [0.5, -2.0],
    "FP32": [0.5, 3.4e38],
    "FP64": [0.1, -1e300],
    "BYTES": ["", "käse"],
}


def bytes_of(datatype: Datatype) -> bytes:
    if datatype == "BYTES":
        parts = [text.encode() for text in _SAMPLES["BYTES"]]
        return b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return np.array(_SAMPLES[datatype], NUMPY_DTYPES[datatype]).tobytes()


def every(**json_of: Any) -> tuple[dict[str, Any], bytes]:
    """All datatypes in one request: binary, but those named, which are JSON with this data."""
    inputs, tail = [], b""
    for datatype in EVERY:
        made = tensor(f"in_{datatype}", datatype, [1, 2])
        if datatype in json_of:
            made["data"] = json_of[datatype]
        else:
            made["parameters"] = {"binary_data_size": len(bytes_of(datatype))}
            tail += bytes_of(datatype)
        inputs.append(made)
    return {"inputs": inputs}, tail


def _datatypes() -> list[HttpCase]:
    cases = []
    whole, tail = every()
    cases.append(
        infer(
            "every datatype in binary, out in JSON",
            "every",
            whole | outputs(*(f"out_{datatype}" for datatype in EVERY if datatype != "FP16")),
            tail,
        )
    )
    whole["parameters"] = {"binary_data_output": True}
    cases.append(infer("every datatype in and out in binary", "every", whole, tail))
    for datatype in EVERY:
        message, tail = every(**{datatype: _SAMPLES[datatype]})
        wanted = outputs(f"out_{datatype}", binary_data=True)
        cases.append(infer(f"{datatype} in JSON", "every", message | wanted, tail))
    message, tail = every()
    cases.append(infer("FP16 out in JSON", "every", message | outputs("out_FP16"), tail))
    wrong: dict[str, Any] = {
        "BOOL": [1, 0], "UINT8": [256, 0], "INT8": [-129, 0], "INT32": [2**31, 0],
        "UINT32": [-1, 0], "UINT64": [-1, 0], "INT64": [2**63, 0], "INT16": [0.5, 1],
        "FP32": ["1", 2], "FP64": [True, 1], "BYTES": [1, 2],
    }  # fmt: skip
    for name, data in wrong.items():
        message, tail = every(**{name: data})
        cases.append(infer(f"{name} in JSON with a wrong value", "every", message, tail))
    message, tail = every()
    cases.append(infer("binary part cut", "every", message, tail[:-1]))
    cases.append(infer("binary part too long", "every", message, tail + b"x"))
    return cases


def _good() -> list[HttpCase]:
    head, one = simple(), simple()["inputs"]
    binary = np.arange(16, dtype=np.int32).tobytes()
    for entry in one:
        del entry["data"]
        entry["parameters"] = {"binary_data_size": 64}
    nested = [
        tensor("INPUT0", "INT32", [2, 16], [NUMBERS, NUMBERS]),
        tensor("INPUT1", "INT32", [2, 16], [[1] * 16] * 2),
    ]
    text = tensor("in", "BYTES", [1, 2], ["a\u0000b", 'ü"\\'])
    strings = [tensor(name, "BYTES", [1, 16], ["7"] * 16) for name in ("INPUT0", "INPUT1")]
    return [
        infer("simple in JSON", "simple", head),
        infer("simple with a batch", "simple", simple(8)),
        infer("simple, version 1", "simple/versions/1", head),
        infer("nested data", "simple", {"inputs": nested}),
        infer("an id comes back", "simple", head | {"id": "my request 7"}),
        infer("an empty id", "simple", head | {"id": ""}),
        infer(
            "parameters of every kind",
            "simple",
            head | {"parameters": {"a": "x", "b": 1, "c": True, "d": 1.5}},
        ),
        infer("one output asked for", "simple", head | outputs("OUTPUT1")),
        infer("outputs in another order", "simple", head | outputs("OUTPUT1", "OUTPUT0")),
        infer("outputs empty", "simple", head | {"outputs": []}),
        infer(
            "binary in and out",
            "simple",
            {"inputs": one, **outputs("OUTPUT0", "OUTPUT1", binary_data=True)},
            binary * 2,
        ),
        infer("binary in, JSON out", "simple", {"inputs": one}, binary * 2),
        infer(
            "mixed outputs",
            "simple",
            {
                "inputs": one,
                "outputs": [
                    {"name": "OUTPUT0", "parameters": {"binary_data": True}},
                    {"name": "OUTPUT1", "parameters": {"binary_data": False}},
                ],
            },
            binary * 2,
        ),
        infer(
            "binary_data_output for all",
            "simple",
            head | {"parameters": {"binary_data_output": True}},
        ),
        infer(
            "an output overrides binary_data_output",
            "simple",
            head
            | {"parameters": {"binary_data_output": True}}
            | outputs("OUTPUT0", binary_data=False),
        ),
        infer(
            "priority and timeout",
            "simple",
            head | {"parameters": {"priority": 1, "timeout": 10_000_000}},
        ),
        infer("text with NUL and quotes", "text", {"inputs": [text]}),
        infer("decimal text", "simple_string", {"inputs": strings}),
        infer(
            "an unbatched model",
            "whole",
            {"inputs": [tensor("in", "FP32", [2, 2], [1, 2, 3, 4.5])]},
        ),
        infer("no elements", "row", {"inputs": [tensor("in", "FP32", [1, 0], [])]}),
        infer("unknown keys are ignored", "simple", head | {"stranger": {"a": [1]}}),
        HttpCase(
            name="a query is ignored",
            path="/v2/models/simple/infer?test_1=1&test_2=2",
            headers={"content-type": JSON},
            body=json.dumps(head).encode(),
        ),
        infer(
            "classification of one",
            "scores",
            row(0.1, 0.9, 0.5, 0.2) | outputs("out", classification=1),
        ),
        infer(
            "classification of three",
            "scores",
            row(0.1, 0.9, 0.5, 0.2) | outputs("out", classification=3),
        ),
        infer(
            "classification of more than there are",
            "scores",
            row(0.1, 0.9, 0.5, 0.2) | outputs("out", classification=9),
        ),
        infer(
            "classification of a batch",
            "scores",
            {
                "inputs": [tensor("in", "FP32", [2, 4], [1, 2, 3, 4, 4, 3, 2, 1])],
                **outputs("out", classification=2),
            },
        ),
        infer(
            "classification in binary",
            "scores",
            row(0.1, 0.9, 0.5, 0.2) | outputs("out", classification=2, binary_data=True),
        ),
        infer("a number in exponent form", "row", row(1e-7, 1e20, 0.1)),
        infer(
            "raw body",
            "row",
            np.arange(3, dtype="<f4").tobytes(),
            **RAW,
        ),
        infer("raw text", "text", b"any \x00 bytes \xff", **RAW),
    ]


def _bad() -> list[HttpCase]:
    head = simple()

    def changed(model: str = "simple", **changes: Any) -> dict[str, Any]:
        message = simple()
        message["inputs"][0] = {
            key: value
            for key, value in (message["inputs"][0] | changes).items()
            if value is not ...
        }
        return message

    deep = b"[" * 200 + b"]" * 200
    binary = {"parameters": {"binary_data_size": 64}}
    return [
        infer("unknown model", "nothing", head),
        infer("unknown version", "simple/versions/9", head),
        infer("version that is no number", "simple/versions/x", head),
        infer("empty body", "simple", b""),
        infer("truncated JSON", "simple", b'{"inputs": [{"na'),
        infer("JSON that is an array", "simple", b"[1]"),
        infer("JSON that is too deep", "simple", b'{"inputs": ' + deep + b"}"),
        infer(
            "an unknown key that is too deep",
            "simple",
            json.dumps(head).encode()[:-1] + b', "stranger": ' + deep + b"}",
        ),
        infer(
            "bare NaN",
            "row",
            b'{"inputs":[{"name":"in","datatype":"FP32","shape":[1,1],"data":[NaN]}]}',
        ),
        infer("not UTF-8", "simple", b'{"inputs": "\xff"}'),
        infer("inputs missing", "simple", {}),
        infer("inputs empty", "simple", {"inputs": []}),
        infer("inputs no array", "simple", {"inputs": 1}),
        infer("input without a name", "simple", changed(name=...)),
        infer("input without a datatype", "simple", changed(datatype=...)),
        infer("input without a shape", "simple", changed(shape=...)),
        infer("input without data", "simple", changed(data=...)),
        infer("unknown input", "simple", changed(name="INPUT9")),
        infer("input missing", "simple", {"inputs": head["inputs"][:1]}),
        infer(
            "input too many",
            "simple",
            {"inputs": [*head["inputs"], tensor("INPUT2", "INT32", [1, 16], NUMBERS)]},
        ),
        infer("input twice", "simple", {"inputs": [head["inputs"][0]] * 2}),
        infer("wrong datatype", "simple", changed(datatype="FP32")),
        infer("unknown datatype", "simple", changed(datatype="INT128")),
        infer("wrong dimension", "simple", changed(shape=[1, 15], data=NUMBERS[:15])),
        infer("too few dimensions", "simple", changed(shape=[16])),
        infer("too many dimensions", "simple", changed(shape=[1, 16, 1])),
        infer("fewer values than the shape", "simple", changed(data=NUMBERS[:15])),
        infer("more values than the shape", "simple", changed(data=[*NUMBERS, 1])),
        infer("negative dimension", "simple", changed(shape=[1, -16])),
        infer("shape overflow", "simple", changed(shape=[2**62, 16])),
        infer("shape of text", "simple", changed(shape=["1", 16])),
        infer("shape beyond 64 bits", "simple", changed(shape=[2**64, 16])),
        infer(
            "zero rows",
            "simple",
            {"inputs": [tensor(name, "INT32", [0, 16], []) for name in ("INPUT0", "INPUT1")]},
        ),
        infer("more rows than allowed", "simple", simple(9)),
        infer("rows that differ", "simple", changed(shape=[2, 16], data=NUMBERS * 2)),
        infer("unknown output", "simple", head | outputs("OUTPUT9")),
        infer("output twice", "simple", head | outputs("OUTPUT0", "OUTPUT0")),
        infer("outputs no array", "simple", head | {"outputs": "OUTPUT0"}),
        infer("id that is a number", "simple", head | {"id": 7}),
        infer("parameter that is an object", "simple", head | {"parameters": {"a": {}}}),
        infer(
            "reserved parameter prefix",
            "simple",
            head | {"parameters": {"triton_enable_empty_final_response": True}},
        ),
        infer("priority that is text", "simple", head | {"parameters": {"priority": "high"}}),
        infer("timeout that is negative", "simple", head | {"parameters": {"timeout": -1}}),
        infer(
            "binary size beyond the body",
            "simple",
            changed(data=..., parameters={"binary_data_size": 100}),
            b"x" * 64,
        ),
        infer(
            "binary size that does not fit the shape",
            "simple",
            changed(data=..., parameters={"binary_data_size": 60}),
            b"x" * 60,
        ),
        infer(
            "binary size that is negative",
            "simple",
            changed(data=..., parameters={"binary_data_size": -1}),
            b"x" * 64,
        ),
        infer("binary size without the header", "simple", changed(data=..., **binary)),
        infer("data and binary size", "simple", changed(**binary), b"x" * 64),
        infer(
            "text length beyond its tensor",
            "text",
            {"inputs": [tensor("in", "BYTES", [1, 1], parameters={"binary_data_size": 5})]},
            b"\xff\xff\xff\x7fx",
        ),
        infer(
            "text fewer than the shape",
            "text",
            {"inputs": [tensor("in", "BYTES", [1, 2], parameters={"binary_data_size": 5})]},
            b"\x01\0\0\0x",
        ),
        infer(
            "header length beyond the body",
            "simple",
            head,
            inference_header_content_length="999999",
        ),
        infer(
            "header length that is negative", "simple", head, inference_header_content_length="-1"
        ),
        infer("header length that is text", "simple", head, inference_header_content_length="abc"),
        infer(
            "header length inside the JSON", "simple", head, inference_header_content_length="20"
        ),
        infer("raw body for two inputs", "simple", b"x" * 64, **RAW),
        infer(
            "raw body for two free dimensions",
            "grid",
            b"x" * 64,
            **RAW,
        ),
        infer("raw body of an odd size", "row", b"x" * 7, **RAW),
        infer("unknown content encoding", "simple", head, content_encoding="br"),
        infer("broken gzip", "simple", b"no gzip", content_encoding="gzip"),
        infer("the model fails", "fails", row(1.0)),
        infer(
            "text that is no number",
            "simple_string",
            {
                "inputs": [
                    tensor(name, "BYTES", [1, 16], ["x"] * 16) for name in ("INPUT0", "INPUT1")
                ]
            },
        ),
        infer(
            "output that is not UTF-8 in JSON",
            "text",
            {"inputs": [tensor("in", "BYTES", [1, 1], parameters={"binary_data_size": 5})]},
            b"\x01\0\0\0\xff",
        ),
        infer(
            "shared memory that is not registered",
            "simple",
            changed(
                data=..., parameters={"shared_memory_region": "none", "shared_memory_byte_size": 64}
            ),
        ),
        infer(
            "classification and shared memory",
            "scores",
            row(1, 2, 3, 4)
            | outputs("out", classification=1, shared_memory_region="r", shared_memory_byte_size=4),
        ),
    ]


def _management() -> list[HttpCase]:
    def post(name: str, path: str, body: Any = None) -> HttpCase:
        content = b"" if body is None else json.dumps(body).encode()
        return HttpCase(name=name, path=path, headers={"content-type": JSON}, body=content)

    return [
        get("live", "/v2/health/live"),
        get("ready", "/v2/health/ready"),
        get("model ready", "/v2/models/simple/ready"),
        get("model ready, version 1", "/v2/models/simple/versions/1/ready"),
        get("unknown model ready", "/v2/models/nothing/ready"),
        get("unknown version ready", "/v2/models/simple/versions/9/ready"),
        get("server metadata", "/v2"),
        get("model metadata", "/v2/models/scores"),
        get("unbatched model metadata", "/v2/models/whole"),
        get("text model metadata", "/v2/models/text"),
        get("unknown model metadata", "/v2/models/nothing"),
        get("model config", "/v2/models/simple/config"),
        get("unbatched model config", "/v2/models/whole/config"),
        get("unknown model config", "/v2/models/nothing/config"),
        get("statistics of an unknown model", "/v2/models/nothing/stats"),
        post("index", "/v2/repository/index"),
        post("index of what is ready", "/v2/repository/index", {"ready": True}),
        post("index of a named repository", "/v2/repository/mine/index"),
        post("load without model control", "/v2/repository/models/simple/load"),
        post("unload without model control", "/v2/repository/models/simple/unload"),
        get("trace settings", "/v2/trace/setting"),
        get("log settings", "/v2/logging"),
        post("log file over the network", "/v2/logging", {"log_file": "/tmp/x"}),
        post("an unknown log setting", "/v2/logging", {"log_stranger": True}),
        get("regions", "/v2/systemsharedmemory/status"),
        get("an unknown region", "/v2/systemsharedmemory/region/none/status"),
        get("unknown path", "/v2/nowhere"),
        get("wrong method on infer", "/v2/models/simple/infer"),
        post("wrong method on health", "/v2/health/live"),
        post("generate for a model with other inputs", "/v2/models/simple/generate", {"a": 1}),
    ]


CASES: tuple[HttpCase, ...] = (*_good(), *_datatypes(), *_bad(), *_management())

assert len({case.name for case in CASES}) == len(CASES)
