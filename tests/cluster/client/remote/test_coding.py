"""Calls as bytes that the server's own decoder reads, and answers back."""

from __future__ import annotations

import zlib

import ml_dtypes
import numpy as np
import pytest

from cluster.client.remote.coding import JSON_LENGTH, decode_answer, encode_call, error_of
from cluster.errors import (
    EngineFailed,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    RateLimited,
    SquadronError,
    Unauthorized,
)
from cluster.protocols.v2_json import decode_infer, encode_infer
from cluster.requests import InferenceResponse
from cluster.tensors import Array, bytes_array, tensor

ARRAYS: dict[str, Array] = {
    "f": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
    "h": np.ones((2, 1), np.float16),
    "b": np.ones((2, 2), ml_dtypes.bfloat16),
    "i": np.array([[2**62], [-1]], np.int64),
    "t": np.array([[True], [False]]),
    "s": bytes_array([b"a\x00", "ä".encode()], (2, 1)),
    "n": np.array([[np.nan], [np.inf]], np.float32),
}


def test_the_servers_decoder_reads_what_is_sent() -> None:
    body = encode_call(ARRAYS, ("y",))

    asked = decode_infer(
        body.content, json_length=int(body.headers[JSON_LENGTH]), model="m", version=""
    )

    for given in asked.inputs:
        assert given.array.dtype == ARRAYS[given.name].dtype
        assert given.array.tobytes() == ARRAYS[given.name].tobytes() or given.name == "s"
    assert [output.name for output in asked.outputs] == ["y"]
    assert asked.inputs[5].array.tolist() == [[b"a\x00"], ["ä".encode()]]


@pytest.mark.parametrize("is_binary", [True, False])
def test_what_the_server_encodes_is_read(is_binary: bool) -> None:
    numeric = {name: a for name, a in ARRAYS.items() if is_binary or name in ("f", "i", "t")}
    body = encode_call({"f": ARRAYS["f"]}, ())
    asked = decode_infer(
        body.content, json_length=int(body.headers[JSON_LENGTH]), model="m", version=""
    )
    asked.parameters["binary_data_output"] = is_binary
    answer = InferenceResponse(
        model="m", version="1", outputs=tuple(tensor(n, a) for n, a in numeric.items())
    )
    encoded = encode_infer(answer, asked)
    length = None if encoded.json_length is None else str(encoded.json_length)

    found = decode_answer(b"".join(bytes(chunk) for chunk in encoded.chunks), length)

    assert set(found) == set(numeric)
    for name, array in numeric.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array, equal_nan=array.dtype.kind == "f")


def test_large_bodies_are_compressed_and_small_ones_not() -> None:
    large = encode_call({"x": np.zeros((64, 64), np.float32)}, (), compression="gzip")
    small = encode_call({"x": np.zeros((1, 1), np.float32)}, (), compression="gzip")

    assert large.headers["Content-Encoding"] == "gzip"
    assert len(zlib.decompress(large.content, 31)) > 64 * 64 * 4
    assert len(large.content) < 1024
    assert "Content-Encoding" not in small.headers


def test_an_array_that_the_protocol_cannot_name_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"'x'.*complex"):
        encode_call({"x": np.zeros(2, np.complex64)}, ())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"outputs": [{"name": "y"}]}'])
def test_an_answer_that_is_none_is_told(content: bytes) -> None:
    with pytest.raises(EngineFailed, match="cannot be read"):
        decode_answer(content, None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest), (401, Unauthorized), (403, Forbidden), (404, ModelNotFound),
        (418, InvalidRequest), (429, RateLimited), (500, EngineFailed), (503, Overloaded),
    ],
)  # fmt: skip
def test_a_status_is_the_error_that_says_who_must_act(
    status: int, kind: type[SquadronError]
) -> None:
    found = error_of(status, b'{"error": "said"}', "2")

    assert type(found) is kind
    assert found.message == "said"
    assert found.retry_after_s == 2
    assert error_of(status, b'{"error": {"message": "m"}}', None).message == "m"
    assert error_of(status, b"", None).message == f"HTTP status {status}"
