"""The JSON and binary coding against a public client's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from cluster.protocols.v2_json import decode_infer, encode_infer
from cluster.requests import InferenceRequest
from cluster.tensors import Tensor, tensor
from tests.cluster.protocols.making import answer, asked, floats, is_same, tensors


def decode(body: bytes, json_length: int | None) -> InferenceRequest:
    return decode_infer(body, json_length=json_length, model="m", version="")


def client_input(sent: Tensor, is_binary: bool) -> InferInput:
    made = InferInput(sent.name, list(sent.shape), sent.datatype)
    made.set_data_from_numpy(sent.array, binary_data=is_binary)
    return made


@settings(deadline=None)
@given(sent=tensors(), other=tensors(name="y"))
def test_binary_requests_of_a_public_client_are_understood(sent: Tensor, other: Tensor) -> None:
    body, json_length = InferenceServerClient.generate_request_body(
        [client_input(sent, True), client_input(other, True)],
        outputs=[InferRequestedOutput("a"), InferRequestedOutput("b", binary_data=False)],
        request_id="r",
        priority=1,
        timeout=10,
        sequence_id=3,
        sequence_start=True,
    )

    got = decode(body, json_length)

    assert is_same(got.inputs[0], sent)
    assert is_same(got.inputs[1], other)
    assert [(item.name, item.is_binary) for item in got.outputs] == [("a", True), ("b", False)]
    assert (got.request_id, got.priority, got.parameters["timeout"]) == ("r", 1, 10)


def test_json_requests_of_a_public_client_are_understood() -> None:
    sent = [
        tensor("a", np.array([[1, 2]], np.int64)),
        tensor("b", np.array([True])),
        tensor("c", np.array(["grün"], object)),
        floats(0.1, name="d"),
    ]
    body, json_length = InferenceServerClient.generate_request_body(
        [client_input(item, False) for item in sent]
    )

    got = decode(body, json_length)

    assert got.parameters == {"binary_data_output": True}
    assert all(is_same(a, b) for a, b in zip(got.inputs, sent, strict=True))


@settings(deadline=None)
@given(sent=tensors(is_text=True), is_binary=st.booleans())
def test_a_public_client_understands_the_answers(sent: Tensor, is_binary: bool) -> None:
    if sent.datatype == "BF16" and not is_binary:
        return  # the client has no numpy type for BF16 in JSON
    encoded = encode_infer(answer(sent), asked(), binary_default=is_binary)

    result = InferenceServerClient.parse_response_body(
        b"".join(encoded.chunks), header_length=encoded.json_length
    )

    got = result.as_numpy("x")
    if sent.datatype == "BYTES":
        assert [x if isinstance(x, bytes) else x.encode() for x in got.flat] == list(
            sent.array.flat
        )
    else:
        made = Tensor(name="x", datatype=sent.datatype, array=got.astype(sent.array.dtype))
        assert is_same(made, sent)
