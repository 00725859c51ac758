"""The quick codec says what the whole one says, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import SquadronError
from cluster.protocols import v2_json
from cluster.protocols.v2_check import check_request
from cluster.protocols.v2_quick import QuickDecoder, QuickEncoder
from cluster.requests import InferenceRequest, InferenceResponse, RequestedOutput
from cluster.tensors import NUMPY_DTYPES, Datatype, Signature, Tensor, TensorSpec, tensor

FLOATS = Signature(
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),),
)
INTS = Signature(
    inputs=(
        TensorSpec(name="a", datatype="INT8", shape=(-1, -1)),
        TensorSpec(name="b", datatype="INT64", shape=(-1, 2)),
    ),
    outputs=(TensorSpec(name="y", datatype="INT64", shape=(-1, 2)),),
)
TEXTS = Signature(
    inputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1,)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1,)),),
)


def quick(signature: Signature) -> QuickDecoder:
    return QuickDecoder("m", signature, is_batched=True, max_batch_size=4)


def whole(
    signature: Signature, body: bytes, json_length: int | None
) -> tuple[InferenceRequest, int] | None:
    """None for a refusal."""
    try:
        request = v2_json.decode_infer(body, json_length=json_length, model="m", version="1")
        rows = check_request(request, signature, max_batch_size=4, is_batched=True)
    except SquadronError:
        return None
    return request, rows


def facts(found: tuple[InferenceRequest, int]) -> Any:
    request, rows = found
    return (
        rows,
        request.model,
        request.version,
        request.request_id,
        [(t.name, t.datatype, t.shape, t.array.dtype, t.array.tolist()) for t in request.inputs],
        request.outputs,
        request.parameters,
        request.priority,
    )


def body(*inputs: dict[str, object], **more: object) -> bytes:
    return orjson.dumps({"inputs": list(inputs), **more})


X = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.5, 2, -3, 4e30]}


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        (FLOATS, body(X)),
        (FLOATS, body(X, id="7")),
        (FLOATS, body(X, id=None, outputs=None, parameters=None)),
        (FLOATS, body(X, outputs=[{"name": "y"}])),
        (FLOATS, body(X, outputs=[{"name": "y", "parameters": {"binary_data": True}}])),
        (FLOATS, body(X, parameters={})),
        (FLOATS, body(X, parameters={"binary_data_output": True})),
        (FLOATS, body(X, parameters={"timeout": 250_000, "priority": 2})),
        (FLOATS, body(X, parameters={"timeout": 0, "priority": 2**64 - 1})),
        (
            INTS,
            body(
                {"name": "b", "datatype": "INT64", "shape": [2, 2], "data": [1, 2, 3, 2**63 - 1]},
                {"name": "a", "datatype": "INT8", "shape": [2, 1], "data": [-128, 127]},
            ),
        ),
        (TEXTS, body({"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "é"]})),
    ],
)
def test_usual_requests_are_decoded_as_the_whole_codec_does(
    signature: Signature, text: bytes
) -> None:
    found = quick(signature).decode(text, None, "1")
    expected = whole(signature, text, None)

    assert found is not None
    assert expected is not None
    assert facts(found) == facts(expected)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"x":' * 100_000,
        body(),
        body(X, X),
        body({**X, "name": "z"}),
        body({**X, "datatype": "FP64"}),
        body({**X, "shape": [4]}),
        body({**X, "shape": [1, 5]}),
        body({**X, "shape": [0, 4], "data": []}),
        body({**X, "shape": [5, 4], "data": [0] * 20}),
        body({**X, "shape": [-1, 4]}),
        body({**X, "shape": [1, 4.0]}),
        body({**X, "data": [1, 2, 3]}),
        body({**X, "data": [1, 2, 3, "4"]}),
        body({**X, "data": [1, 2, 3, None]}),
        body({**X, "data": [1, 2, 3, 4e38]}),
        body({**X, "data": [[1, 2, 3, 4]]}),
        body({**X, "parameters": {"shared_memory_region": "r"}}),
        body({**X, "parameters": {"binary_data_size": 16}}),
        body(X, outputs=[{"name": "other"}]),
        body(X, outputs=[{"name": "y"}, {"name": "y"}]),
        body(X, outputs=[{"name": "y", "parameters": {"classification": 3}}]),
        body(X, parameters={"priority": -1}),
        body(X, parameters={"priority": True}),
        body(X, parameters={"priority": None}),
        body(X, parameters={"timeout": 0}).replace(b":0}", b":%d}" % 2**64),
        body(X, parameters={"timeout": "250000"}),
        body(X, parameters={"timeout": 2.5}),
        body(X, parameters={"binary_data_output": None, "timeout": 1}),
        body(X, parameters={"sequence_id": 3}),
        body(X, unknown=1),
    ],
)
def test_what_is_unusual_or_wrong_is_left_to_the_whole_codec(text: bytes) -> None:
    assert quick(FLOATS).decode(text, None, "1") is None


def test_integers_out_of_range_are_left_to_the_whole_codec() -> None:
    text = body(
        {"name": "a", "datatype": "INT8", "shape": [1, 1], "data": [128]},
        {"name": "b", "datatype": "INT64", "shape": [1, 2], "data": [0, 0]},
    )

    assert quick(INTS).decode(text, None, "1") is None


def test_batches_that_differ_are_left_to_the_whole_codec() -> None:
    text = body(
        {"name": "a", "datatype": "INT8", "shape": [1, 1], "data": [1]},
        {"name": "b", "datatype": "INT64", "shape": [2, 2], "data": [0, 0, 0, 0]},
    )

    assert quick(INTS).decode(text, None, "1") is None


def binary(shape: list[int], size: int, tail: bytes) -> tuple[bytes, int]:
    parameters = {"binary_data_size": size}
    text = body({"name": "x", "datatype": "FP32", "shape": shape, "parameters": parameters})
    return text + tail, len(text)


def test_binary_tensors_are_views_on_the_body() -> None:
    tail = np.arange(8, dtype=np.float32).tobytes()
    text, length = binary([2, 4], 32, tail)

    found = quick(FLOATS).decode(text, length, "1")
    expected = whole(FLOATS, text, length)

    assert found is not None
    assert expected is not None
    assert facts(found) == facts(expected)
    assert not found[0].inputs[0].array.flags.owndata


@pytest.mark.parametrize(
    ("size", "tail", "length_change"),
    [(32, 31, 0), (32, 33, 0), (28, 32, 0), (32, 32, 1), (32, 32, -1), (32, 32, 1000)],
)
def test_binary_sizes_that_lie_are_left_to_the_whole_codec(
    size: int, tail: int, length_change: int
) -> None:
    text, length = binary([2, 4], size, bytes(tail))

    assert quick(FLOATS).decode(text, length + length_change, "1") is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.floats(width=32) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["inputs", "name", "datatype", "shape", "data", "id", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ),
    st.sampled_from(["name", "datatype", "shape", "data", "parameters", "more"]),
)
def test_no_body_is_taken_differently_or_breaks_the_decoder(value: object, where: str) -> None:
    for text in (
        orjson.dumps({"inputs": [{**X, where: value}]}),
        orjson.dumps({"inputs": [X], "parameters": {"timeout": value, "priority": 1}}),
    ):
        same_or_left(text)


def same_or_left(text: bytes) -> None:
    found = quick(FLOATS).decode(text, None, "1")

    if found is not None:
        expected = whole(FLOATS, text, None)
        assert expected is not None
        assert facts(found) == facts(expected)


def response(*outputs: Tensor) -> InferenceResponse:
    return InferenceResponse(
        model="m",
        version="2",
        request_id="r",
        variant="m-fp32",
        outputs=outputs,
        parameters={"squadron_variant": "m-fp32"},
    )


@pytest.mark.parametrize(
    "datatype", ["FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32"]
)
@pytest.mark.parametrize("shape", [(1, 3), (2, 2, 2), (0,), ()])
@pytest.mark.parametrize("request_id", ["", 'a"ü'])
def test_answers_are_written_as_the_whole_codec_does(
    datatype: Datatype, shape: tuple[int, ...], request_id: str
) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(NUMPY_DTYPES[datatype])
    asked = InferenceRequest(model="m", inputs=(), request_id=request_id)
    answer = response(
        Tensor(name="y", datatype=datatype, array=array),
        Tensor(name="null", datatype=datatype, array=array),
    )

    assert QuickEncoder().encode(answer, asked) == v2_json.encode_infer(answer, asked).chunks


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "BF16", "BOOL", "INT64", "UINT8"])
@pytest.mark.parametrize("shape", [(1, 3), (64, 1024), (0,), ()])
@pytest.mark.parametrize(
    "how",
    [
        {"parameters": {"binary_data_output": True}, "request_id": 'a"ü'},
        {"outputs": (RequestedOutput(name="y", is_binary=True),)},
        {
            "parameters": {"binary_data_output": False},
            "outputs": (
                RequestedOutput(name="y", is_binary=True),
                RequestedOutput(name="z", is_binary=True),
            ),
        },
    ],
)
def test_binary_answers_are_those_of_the_whole_codec(
    datatype: Datatype, shape: tuple[int, ...], how: dict[str, Any]
) -> None:
    numbers = np.arange(np.prod(shape, dtype=int)) % 100
    array = numbers.reshape(shape).astype(NUMPY_DTYPES[datatype])
    asked = InferenceRequest(model="m", inputs=(), **how)
    names = [output.name for output in asked.outputs] or ["y", "z"]
    answer = response(*(Tensor(name=name, datatype=datatype, array=array) for name in names))
    encoder = QuickEncoder()

    expected = v2_json.encode_infer(answer, asked)
    assert expected.json_length == len(expected.chunks[0])
    # The second time from what the first one kept.
    for _ in range(2):
        assert encoder.encode(answer, asked) == expected.chunks


def test_rows_of_a_transposed_array_travel_in_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    asked = InferenceRequest(model="m", inputs=(), parameters={"binary_data_output": True})
    answer = response(tensor("y", array))

    found = QuickEncoder().encode(answer, asked)

    assert found == v2_json.encode_infer(answer, asked).chunks
    assert found is not None
    assert bytes(found[1]) == np.ascontiguousarray(array).tobytes()


def test_a_part_of_a_batch_is_written_as_it_is() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    asked = InferenceRequest(model="m", inputs=())
    answer = response(tensor("y", rows[1:2]))

    assert QuickEncoder().encode(answer, asked) == v2_json.encode_infer(answer, asked).chunks


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        (response(tensor("y", np.array([np.nan], np.float32))), {}),
        (response(tensor("y", np.array([np.inf], np.float32))), {}),
        (response(tensor("y", np.array([b"a"]))), {}),
        (response(tensor("y", np.ones((4, 4), np.float32)[:, ::2])), {}),
        (response(tensor("y", np.array([b"a"]))), {"parameters": {"binary_data_output": True}}),
        (
            response(tensor("y", np.ones(2)), tensor("z", np.ones(2))),
            {
                "parameters": {"binary_data_output": True},
                "outputs": (
                    RequestedOutput(name="y"),
                    RequestedOutput(name="z", is_binary=False),
                ),
            },
        ),
        (
            response(tensor("y", np.ones(2, np.float32))),
            {"outputs": (RequestedOutput(name="y", num_classes=1),)},
        ),
    ],
)
def test_unusual_answers_are_left_to_the_whole_codec(
    answer: InferenceResponse, asked: dict[str, Any]
) -> None:
    request = InferenceRequest(model="m", inputs=(), **asked)

    assert QuickEncoder().encode(answer, request) is None
