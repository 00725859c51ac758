"""The quick codec says what the whole one says, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import SquadronError
from cluster.protocols import v2_grpc
from cluster.protocols.grpc_schema import message_class
from cluster.protocols.v2_check import check_request
from cluster.protocols.v2_grpc_quick import QuickRpcDecoder, QuickRpcEncoder
from cluster.requests import InferenceRequest, InferenceResponse, RegionSlice, RequestedOutput
from cluster.tensors import NUMPY_DTYPES, Datatype, Signature, TensorSpec, tensor

Request = message_class("inference.ModelInferRequest")
Response = message_class("inference.ModelInferResponse")

FLOATS = Signature(
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),),
)
TWO = Signature(
    inputs=(
        TensorSpec(name="a", datatype="INT8", shape=(-1, -1)),
        TensorSpec(name="b", datatype="BF16", shape=(-1, 2)),
    ),
    outputs=(TensorSpec(name="y", datatype="INT64", shape=(-1, 2)),),
)
TEXTS = Signature(
    inputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1, 1)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1,)),),
)
X = ("x", "FP32", [1, 4], b"\x00\x00\x80?" * 4)


def message(*inputs: tuple[str, str, list[int], bytes], **fields: Any) -> Any:
    found = Request(model_name="m", **fields)
    for name, datatype, shape, raw in inputs:
        found.inputs.add(name=name, datatype=datatype, shape=shape)
        found.raw_input_contents.append(raw)
    return found


def whole(signature: Signature, data: bytes) -> tuple[InferenceRequest, int] | None:
    """None for a refusal."""
    try:
        request = v2_grpc.decode_infer(data)
        return request, check_request(request, signature, max_batch_size=4, is_batched=True)
    except SquadronError:
        return None


def facts(found: tuple[InferenceRequest, int]) -> Any:
    request, rows = found
    return (
        rows,
        request.model,
        request.version,
        request.request_id,
        [(t.name, t.datatype, t.shape, t.array.dtype, t.array.tobytes()) for t in request.inputs],
        request.outputs,
        request.parameters,
        request.priority,
    )


def compare(signature: Signature, sent: Any) -> bool:
    """Whether the quick one knew it; what it knew is what the whole one knows."""
    decoder = QuickRpcDecoder("m", signature, is_batched=True, max_batch_size=4)
    found = decoder.decode(sent, sent.model_version)
    if found is None:
        return False
    wanted = whole(signature, sent.SerializeToString())
    assert wanted is not None
    assert facts(found) == facts(wanted)
    return True


def with_parameter(sent: Any, name: str, **value: Any) -> Any:
    for key, each in value.items():
        setattr(sent.parameters[name], key, each)
    return sent


def with_output(sent: Any, name: str, **parameters: int) -> Any:
    added = sent.outputs.add(name=name)
    for key, value in parameters.items():
        added.parameters[key].int64_param = value
    return sent


@pytest.mark.parametrize(
    ("signature", "sent"),
    [
        (FLOATS, message(X)),
        (FLOATS, message(X, id="7", model_version="1")),
        (FLOATS, message(("x", "FP32", [4, 4], b"\0" * 64))),
        (FLOATS, with_output(message(X), "y")),
        (FLOATS, with_parameter(message(X), "timeout", int64_param=5)),
        (FLOATS, with_parameter(message(X), "priority", uint64_param=2**64 - 1)),
        (TWO, message(("b", "BF16", [1, 2], b"1234"), ("a", "INT8", [1, 3], b"123"))),
    ],
)
def test_usual_requests_are_known(signature: Signature, sent: Any) -> None:
    assert compare(signature, sent)


@pytest.mark.parametrize(
    ("signature", "sent"),
    [
        (FLOATS, message()),
        (FLOATS, message(X, X)),
        (FLOATS, message(("z", *X[1:]))),
        (FLOATS, message(("x", "FP64", [1, 4], b"\0" * 32))),
        (FLOATS, message(("x", "FP32", [1, 3], b"\0" * 12))),
        (FLOATS, message(("x", "FP32", [1, 4], b"\0" * 15))),
        (FLOATS, message(("x", "FP32", [5, 4], b"\0" * 80))),
        (FLOATS, message(("x", "FP32", [0, 4], b""))),
        (FLOATS, message(("x", "FP32", [-1, -4], b"\0" * 16))),
        (FLOATS, message(("x", "FP32", [], b"\0" * 4))),
        (FLOATS, with_output(message(X), "nothing")),
        (FLOATS, with_output(with_output(message(X), "y"), "y")),
        (FLOATS, with_output(message(X), "y", classification=1)),
        (FLOATS, with_parameter(message(X), "timeout", int64_param=-1)),
        (FLOATS, with_parameter(message(X), "priority", string_param="1")),
        (FLOATS, with_parameter(message(X), "sequence_id", int64_param=1)),
        (FLOATS, with_parameter(message(X), "triton_x", int64_param=1)),
        (TWO, message(("a", "INT8", [1, 2], b"12"), ("b", "BF16", [2, 2], b"12345678"))),
        (TWO, message(("a", "INT8", [1, 2], b"12"), ("a", "INT8", [1, 2], b"12"))),
        (TEXTS, message(("text", "BYTES", [1, 1], b"\1\0\0\0a"))),
    ],
)
def test_what_is_unusual_or_wrong_is_left_to_the_whole_codec(
    signature: Signature, sent: Any
) -> None:
    assert not compare(signature, sent)


def test_typed_fields_are_left_to_the_whole_codec() -> None:
    sent = message(X)
    sent.inputs[0].contents.fp32_contents.append(1.0)

    assert not compare(FLOATS, sent)
    del sent.raw_input_contents[:]
    assert not compare(FLOATS, sent)


NAMES = st.sampled_from(["x", "a", "b", "text"])
TYPES = st.sampled_from(["FP32", "INT8", "BF16", "BYTES", ""])
INPUTS = st.tuples(NAMES, TYPES, st.lists(st.integers(-1, 5), max_size=3), st.binary(max_size=80))


@given(
    st.sampled_from([FLOATS, TWO, TEXTS]),
    st.lists(INPUTS, max_size=3),
    st.text(max_size=3),
    st.lists(st.sampled_from(["y", "z"]), max_size=2),
)
def test_what_is_known_is_what_the_whole_codec_knows(
    signature: Signature,
    inputs: list[tuple[str, str, list[int], bytes]],
    request_id: str,
    outputs: list[str],
) -> None:
    sent = message(*inputs, id=request_id)
    for name in outputs:
        with_output(sent, name)
    compare(signature, sent)


@given(
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3),
    st.sampled_from(["", "7", "é"]),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_sizes_that_fit_are_known(dims: list[int], request_id: str, rows: int, wide: int) -> None:
    assert compare(FLOATS, message(("x", "FP32", [rows, 4], b"\1" * rows * 16), id=request_id))
    inputs = (
        ("a", "INT8", [rows, wide], b"1" * rows * wide),
        ("b", "BF16", [rows, 2], b"1" * 4 * rows),
    )
    assert compare(TWO, message(*inputs))
    compare(FLOATS, message(("x", "FP32", dims, b"\0" * 16)))


def answer(**fields: Any) -> InferenceResponse:
    return InferenceResponse(
        model="m", version="1", variant="v", parameters={"squadron_variant": "v"}, **fields
    )


ENCODED = tuple(each for each in NUMPY_DTYPES if each != "BYTES")


@given(
    st.sampled_from(ENCODED),
    st.lists(st.integers(0, 20), max_size=3),
    st.sampled_from(["", "7", "é" * 200]),
)
def test_answers_are_the_same_messages(
    datatype: Datatype, shape: list[int], request_id: str
) -> None:
    arrays = [np.ones(shape, NUMPY_DTYPES[datatype]), np.zeros((2, 100), np.float32)]
    found = answer(outputs=(tensor("y", arrays[0]), tensor("z", arrays[1])))
    asked = InferenceRequest(model="m", inputs=(), request_id=request_id)
    encoder = QuickRpcEncoder()
    for _ in range(2):
        encoded = encoder.encode(found, asked)
        assert encoded is not None
        wanted = v2_grpc.encode_infer(found, asked)
        assert Response.FromString(encoded) == Response.FromString(wanted)


@pytest.mark.parametrize(
    ("found", "output"),
    [
        (answer(outputs=(tensor("y", np.array([b"a"], object)),)), RequestedOutput(name="y")),
        (answer(outputs=()), RequestedOutput(name="y", num_classes=1)),
        (
            answer(outputs=()),
            RequestedOutput(name="y", place=RegionSlice(region="r", offset=0, byte_size=4)),
        ),
    ],
)
def test_other_answers_are_left_to_the_whole_codec(
    found: InferenceResponse, output: RequestedOutput
) -> None:
    asked = InferenceRequest(model="m", inputs=(), outputs=(output,))

    assert QuickRpcEncoder().encode(found, asked) is None


def test_an_answer_that_says_more_of_itself_is_left_to_the_whole_codec() -> None:
    found = answer(outputs=())
    found.parameters["squadron_cache"] = "hit"

    assert QuickRpcEncoder().encode(found, InferenceRequest(model="m", inputs=())) is None
