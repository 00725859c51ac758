from __future__ import annotations

import numpy as np
import pytest

from cluster.errors import InvalidRequest
from cluster.protocols.envelope import (
    Call,
    Reply,
    decode_calls,
    decode_replies,
    encode_calls,
    encode_replies,
)
from cluster.requests import SequenceStep
from cluster.tensors import DATATYPES, NUMPY_DTYPES, Tensor, tensor


def example(datatype: str) -> Tensor:
    if datatype == "BYTES":
        return tensor("t", np.array([b"", b"\xff\0", "grün".encode()], dtype=object))
    values = np.array([0, 1, 1], dtype=NUMPY_DTYPES[datatype])  # type: ignore[index]
    return tensor("t", values)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_a_call_arrives_as_it_left_for_every_datatype(datatype: str) -> None:
    sent = Call(
        call_id=7,
        rows=3,
        left_s=1.5,
        inputs=(example(datatype), example("FP32")),
        wanted=("y",),
        request_id="r",
        priority=2,
        tenant="acme",
        trace="00-1-2-01",
    )

    (got,) = decode_calls(encode_calls([sent]))

    assert (got.call_id, got.rows, got.left_s, got.wanted) == (7, 3, 1.5, ("y",))
    assert (got.request_id, got.priority, got.tenant, got.trace) == (
        "r",
        2,
        "acme",
        "00-1-2-01",
    )
    for before, after in zip(sent.inputs, got.inputs, strict=True):
        assert (after.name, after.datatype) == (before.name, before.datatype)
        assert np.array_equal(after.array, before.array)


def test_tensors_of_a_message_are_views_on_it() -> None:
    message = encode_calls([Call(call_id=1, rows=1, left_s=1.0, inputs=(example("FP32"),))])

    (call,) = decode_calls(message)

    assert not call.inputs[0].array.flags.owndata
    assert not call.inputs[0].array.flags.writeable


def test_empty_and_scalar_shapes_survive() -> None:
    sent = Reply(
        call_id=1,
        outputs=(
            tensor("none", np.zeros((0, 5), np.float32)),
            tensor("one", np.array(3, np.int64)),
        ),
    )

    (got,) = decode_replies(encode_replies([sent]))

    assert got.outputs[0].shape == (0, 5)
    assert got.outputs[1].array.item() == 3


def test_an_error_keeps_its_class_message_and_details() -> None:
    sent = Reply(call_id=1, error=InvalidRequest("not an image", tensor="image", index=2))

    (got,) = decode_replies(encode_replies([sent]))

    assert type(got.error) is InvalidRequest
    assert got.error.message == "not an image"
    assert got.error.details == {"tensor": "image", "index": 2}


@pytest.mark.parametrize("message", [b"", b"short", b"\0" * 64])
def test_anything_else_is_no_envelope(message: bytes) -> None:
    with pytest.raises(ValueError, match="envelope"):
        decode_calls(message)


def test_an_envelope_of_the_other_kind_or_of_another_shape_is_refused() -> None:
    calls = encode_calls([Call(call_id=1, rows=1, left_s=1.0, inputs=(example("FP32"),))])
    for decode, message in (
        (decode_replies, calls),
        (decode_calls, encode_replies([Reply(call_id=1)])),
        (decode_calls, calls.replace(b'"FP32"', b'"FP99"')),
        (decode_calls, calls.replace(b'[{"c":1', b'[["c",1')),
    ):
        with pytest.raises(ValueError, match=r"envelope|JSON|expected"):
            decode(message)


@pytest.mark.parametrize(
    "step", [SequenceStep(id=2**64 - 1, is_start=True), SequenceStep(id="7", is_end=True), None]
)
def test_a_place_in_a_sequence_and_parameters_travel_with_a_call(
    step: SequenceStep | None,
) -> None:
    sent = Call(
        call_id=1, rows=1, left_s=1.0, inputs=(), sequence=step, parameters={"a": 1, "b": True}
    )

    (got,) = decode_calls(encode_calls([sent]))

    assert (got.sequence, got.parameters) == (step, {"a": 1, "b": True})


def test_a_call_without_them_carries_nothing_of_them() -> None:
    message = encode_calls([Call(call_id=1, rows=1, left_s=1.0, inputs=())])

    assert b'"s"' not in message
    assert b'"m"' not in message
    assert b'"a"' not in message


def test_the_time_waited_at_the_door_travels_with_a_call() -> None:
    sent = Call(call_id=1, rows=1, left_s=1.0, inputs=(), waited_s=0.25)

    (got,) = decode_calls(encode_calls([sent]))

    assert got.waited_s == 0.25
