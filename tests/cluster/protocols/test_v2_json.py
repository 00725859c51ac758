from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings

from cluster.errors import InvalidRequest, Overloaded, Unsupported
from cluster.protocols.v2_json import decode_infer, decode_raw, encode_infer, error_body
from cluster.requests import InferenceRequest, RequestedOutput
from cluster.tensors import Signature, Tensor, TensorSpec
from tests.cluster.protocols.making import answer, asked, body_with, floats, is_same, tensors


def decode(body: bytes, json_length: int | None = None) -> InferenceRequest:
    return decode_infer(body, json_length=json_length, model="m", version="")


def refusal(body: bytes, json_length: int | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode(body, json_length)
    return caught.value.message


def whole(message: dict[str, Any]) -> bytes:
    return orjson.dumps({"inputs": [], **message})


def as_request(encoded_chunks: tuple[bytes | memoryview, ...]) -> tuple[bytes, int]:
    """An answer's body turned into a request's: `outputs` become `inputs`."""
    head = orjson.loads(encoded_chunks[0])
    text = orjson.dumps({"inputs": head["outputs"]})
    return b"".join([text, *encoded_chunks[1:]]), len(text)


# What a good request becomes


def test_a_request_keeps_its_id_parameters_priority_and_outputs() -> None:
    body = orjson.dumps(
        {
            "id": "r1",
            "parameters": {"priority": 2, "timeout": 5000, "note": "x", "scale": 0.5, "on": True},
            "inputs": [{"name": "x", "datatype": "INT8", "shape": [1, 2], "data": [[1, -2]]}],
            "outputs": [
                {"name": "y", "parameters": {"binary_data": True}},
                {"name": "z", "parameters": {"classification": 3}},
                {"name": "w"},
            ],
        }
    )

    got = decode_infer(body, json_length=None, model="m", version="4")

    assert (got.model, got.version, got.request_id, got.priority) == ("m", "4", "r1", 2)
    assert got.parameters == {
        "priority": 2,
        "timeout": 5000,
        "note": "x",
        "scale": 0.5,
        "on": True,
    }
    assert got.outputs == (
        RequestedOutput(name="y", is_binary=True),
        RequestedOutput(name="z", num_classes=3),
        RequestedOutput(name="w"),
    )
    assert got.inputs[0].array.tolist() == [[1, -2]]


def test_optional_fields_that_are_null_count_as_absent() -> None:
    inputs = [{"name": "x", "datatype": "BOOL", "shape": [1], "data": [True], "parameters": None}]
    got = decode(orjson.dumps({"id": None, "parameters": None, "outputs": None, "inputs": inputs}))

    assert (got.request_id, got.parameters, got.outputs) == ("", {}, ())


def test_binary_tensors_are_views_on_the_body() -> None:
    text = body_with(data=..., parameters={"binary_data_size": 8})
    body = text + np.array([1.5, 2.5], "<f4").tobytes()

    got = decode(body, len(text)).inputs[0].array

    assert got.tolist() == [1.5, 2.5]
    assert np.shares_memory(got, np.frombuffer(body, np.uint8))


def test_binary_and_json_inputs_may_be_mixed() -> None:
    inputs = [
        {"name": "a", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}},
        {"name": "b", "datatype": "UINT8", "shape": [1], "data": [7]},
        {"name": "c", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}},
        {"name": "d", "datatype": "FP32", "shape": [0], "parameters": {"binary_data_size": 0}},
    ]
    text = orjson.dumps({"inputs": inputs})

    got = decode(text + b"\1\2" + b"\1\0\0\0z", len(text)).inputs

    assert [item.array.tolist() for item in got] == [[1, 2], [7], [b"z"], []]


def test_a_memoryview_is_as_good_as_bytes() -> None:
    assert decode_infer(memoryview(body_with()), json_length=None, model="m", version="").inputs[
        0
    ].array.tolist() == [1.0, 2.0]


@settings(deadline=None)
@given(sent=tensors(is_text=True))
def test_every_tensor_survives_json(sent: Tensor) -> None:
    encoded = encode_infer(answer(sent), asked())
    body, _ = as_request(encoded.chunks)

    assert encoded.json_length is None
    assert is_same(decode(body).inputs[0], sent)


@settings(deadline=None)
@given(sent=tensors(), other=tensors(name="y"))
def test_every_tensor_survives_binary(sent: Tensor, other: Tensor) -> None:
    encoded = encode_infer(answer(sent, other), asked(), binary_default=True)
    body, json_length = as_request(encoded.chunks)

    got = decode(body, json_length).inputs

    assert encoded.json_length == len(encoded.chunks[0])
    assert is_same(got[0], sent)
    assert is_same(got[1], other)


# What a bad request is told


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (b"", ["empty"]),
        (b"{", ["failed to parse the request JSON"]),
        (b'{"inputs":[{"data":[NaN]}]}', ["failed to parse", "no JSON"]),
        (b'"\xff"', ["UTF-8"]),
        (b"[" * 2000, ["failed to parse"]),
        (b"[]", ["must be an object, got an array"]),
        (b"{}", ["'inputs'", "got nothing"]),
        (b'{"inputs":{}}', ["'inputs'", "an object"]),
        (b'{"inputs":[1]}', ["'inputs'", "integer 1"]),
        (whole({"id": 7}), ["'id' must be a string, got an integer 7"]),
        (whole({"parameters": []}), ["parameters of the request", "an array"]),
        (whole({"parameters": {"a": [1]}}), ["'a'", "an array"]),
        (whole({"parameters": {"a": None}}), ["'a'", "null"]),
        (whole({"parameters": {"triton_x": 1}}), ["triton_x", "reserved"]),
        (whole({"parameters": {"timeout": "1"}}), ["'timeout'", "string '1'"]),
        (whole({"parameters": {"priority": -1}}), ["'priority'", "-1"]),
        (whole({"parameters": {"sequence_id": -1}}), ["'sequence_id'", "-1"]),
        (whole({"parameters": {"sequence_id": "x" * 129}}), ["'sequence_id'", "128 bytes"]),
        (whole({"parameters": {"sequence_id": "ü" * 65}}), ["'sequence_id'", "128 bytes"]),
        (whole({"parameters": {"sequence_start": 1}}), ["'sequence_start'", "integer 1"]),
        (whole({"parameters": {"binary_data_output": "yes"}}), ["'binary_data_output'", "'yes'"]),
        (whole({"outputs": {}}), ["'outputs'", "an object"]),
        (whole({"outputs": ["y"]}), ["'outputs'", "string 'y'"]),
        (whole({"outputs": [{}]}), ["'name' of an output", "null"]),
        (whole({"outputs": [{"name": "y"}] * 2}), ["output 'y' already exists in request"]),
        (
            whole({"outputs": [{"name": "y", "parameters": {"classification": "3"}}]}),
            ["'classification'", "output 'y'"],
        ),
        (
            whole({"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}),
            ["'binary_data'", "output 'y'"],
        ),
        (body_with(name=3), ["'name' of an input", "integer 3"]),
        (body_with(name=""), ["'name' of an input", "got 0"]),
        (body_with(datatype="FLOAT"), ["'x'", "FP32", "'FLOAT'"]),
        (body_with(datatype=...), ["'x'", "null"]),
        (body_with(shape="2"), ["shape of input 'x'", "string '2'"]),
        (body_with(shape=[-1]), ["shape of input 'x'", "-1"]),
        (body_with(shape=[2.0]), ["shape of input 'x'", "2.0"]),
        (body_with(shape=[True]), ["shape of input 'x'", "boolean"]),
        (body_with(shape=[[2]]), ["shape of input 'x'", "an array"]),
        (body_with(shape=[1] * 33), ["33 dimensions", "32"]),
        (body_with(shape=[2**32, 2**32]), ["too many elements"]),
        (body_with(shape=[0, 2**63], data=[]), ["too many elements"]),
        (body_with(data=...), ["'x'", "exactly one", "neither"]),
        (body_with(parameters={"binary_data_size": 8}), ["exactly one", "both"]),
        (body_with(data=..., parameters={"binary_data_size": -8}), ["binary_data_size", "-8"]),
        (body_with(data=..., parameters={"binary_data_size": 8}), ["header field"]),
        (body_with(deep=orjson.loads("[" * 120 + "]" * 120)), ["nesting depth", "100"]),
        (whole({"deep": orjson.loads('{"a":' * 120 + "1" + "}" * 120)}), ["nesting depth", "100"]),
    ],
)
def test_a_mistake_is_named_with_what_was_expected_and_what_came(
    body: bytes, facts: list[str]
) -> None:
    text = refusal(body)

    for fact in facts:
        assert fact in text


def test_an_input_given_twice_is_refused() -> None:
    one = orjson.loads(body_with())["inputs"][0]

    assert "input 'x' already exists" in refusal(orjson.dumps({"inputs": [one, one]}))


def test_an_error_text_stays_short_however_large_the_value() -> None:
    assert len(refusal(body_with(datatype="A" * 1_000_000))) < 500
    assert len(refusal(body_with(name="A" * 1_000_000))) < 500
    assert len(refusal(whole({"parameters": {"A" * 1_000_000: None}}))) < 500


@pytest.mark.parametrize("json_length", [-1, 0, 10_000])
def test_a_json_length_outside_the_body_is_refused(json_length: int) -> None:
    assert str(json_length) in refusal(body_with(), json_length)


def test_too_few_and_too_many_binary_bytes_are_refused() -> None:
    text = body_with(data=..., parameters={"binary_data_size": 8})

    assert "expected 8 bytes of binary data, got 7" in refusal(text + bytes(7), len(text))
    assert "unexpected 1 bytes after the last input" in refusal(text + bytes(9), len(text))
    short = body_with(data=..., parameters={"binary_data_size": 4})
    assert "Expected 8 bytes for FP32 [2], got 4" in refusal(short + bytes(4), len(short))


@pytest.mark.parametrize("place", ["inputs", "outputs"])
def test_shared_memory_is_unsupported_and_the_region_is_named(place: str) -> None:
    entry = {
        "name": "x",
        "datatype": "FP32",
        "shape": [2],
        "parameters": {"shared_memory_region": "input_data", "shared_memory_byte_size": 8},
    }
    with pytest.raises(Unsupported, match="input_data"):
        decode(whole({place: [entry]}))


# Raw bodies


def signature(*specs: tuple[str, str, tuple[int, ...]]) -> Signature:
    made = [TensorSpec(name=n, datatype=d, shape=s) for n, d, s in specs]  # type: ignore[arg-type]
    return Signature(inputs=tuple(made), outputs=())


@pytest.mark.parametrize("shape", [(-1,), (1,), (-1, 1), ()])
def test_a_raw_body_is_the_one_element_of_a_bytes_input(shape: tuple[int, ...]) -> None:
    got = decode_raw(b"\xff\xd8 picture", "m", "", signature(("image", "BYTES", shape)))

    assert got.inputs[0].shape == (1,) * len(shape)
    assert list(got.inputs[0].array.flat) == [b"\xff\xd8 picture"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((2, 4), (2, 4)), ((-1, 4), (2, 4)), ((-1, 2, -1), (1, 2, 4)), ((4, -1), (4, 2))],
)
def test_a_dynamic_dimension_of_a_raw_body_follows_from_its_size(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    got = decode_raw(bytes(32), "m", "", signature(("x", "FP32", shape)))

    assert got.inputs[0].shape == expected


@pytest.mark.parametrize(
    ("specs", "fact"),
    [
        ([("x", "FP32", (1,)), ("y", "FP32", (1,))], "exactly 1 input, model 'm' has 2"),
        ([("x", "BYTES", (-1, 3))], "one BYTES element"),
        ([("x", "FP32", (-1, -1, -1))], "one dynamic dimension"),
        ([("x", "FP32", (-1, 3))], "Expected a multiple of 12 bytes"),
        ([("x", "FP32", (3,))], "Expected 12 bytes"),
        ([("x", "FP32", (-1, 0))], "Expected a multiple of 0 bytes"),
    ],
)
def test_a_raw_body_that_does_not_fit_the_model_is_refused(specs: Any, fact: str) -> None:
    with pytest.raises(InvalidRequest, match=fact):
        decode_raw(bytes(16), "m", "", signature(*specs))


# Answers


def test_an_answer_holds_exactly_the_fields_of_the_protocol() -> None:
    encoded = encode_infer(answer(floats(1.5, 2.0)), asked())

    assert encoded.content_type == "application/json"
    assert encoded.json_length is None
    assert orjson.loads(b"".join(encoded.chunks)) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.5, 2.0]}],
    }


def test_id_and_parameters_are_answered_when_there_are_any() -> None:
    encoded = encode_infer(answer(parameters={"squadron_variant": "v"}), asked(request_id="r"))

    head = orjson.loads(encoded.chunks[0])
    assert (head["id"], head["parameters"]) == ("r", {"squadron_variant": "v"})


@pytest.mark.parametrize("by_output", [None, True, False])
@pytest.mark.parametrize("by_request", [None, True, False])
@pytest.mark.parametrize("default", [True, False])
def test_an_output_goes_before_the_request_and_the_request_before_the_default(
    by_output: bool | None, by_request: bool | None, default: bool
) -> None:
    choices = [choice for choice in (by_output, by_request, default) if choice is not None]
    parameters = {} if by_request is None else {"binary_data_output": by_request}

    encoded = encode_infer(
        answer(floats(1.0)),
        asked(RequestedOutput(name="x", is_binary=by_output), parameters=parameters),
        binary_default=default,
    )

    assert (encoded.json_length is not None) == choices[0]
    assert len(encoded.chunks) == (2 if choices[0] else 1)
    expected = "application/octet-stream" if choices[0] else "application/json"
    assert encoded.content_type == expected


def test_classes_are_answered_with_their_labels() -> None:
    encoded = encode_infer(
        answer(floats(0.1, 0.7, 0.2)),
        asked(RequestedOutput(name="x", num_classes=2)),
        class_labels={"x": ["cat", "dog"]},
    )

    (output,) = orjson.loads(encoded.chunks[0])["outputs"]
    assert output["data"] == ["0.700000:1:dog", "0.200000:2"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2])


def test_an_error_is_its_text_under_one_key() -> None:
    assert error_body(Overloaded("Exceeds maximum queue size")) == (
        b'{"error":"Exceeds maximum queue size"}'
    )
