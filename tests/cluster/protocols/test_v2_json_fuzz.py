"""Hostile bodies: whatever comes, a request or a refusal, in linear time."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.errors import RequestError
from cluster.protocols.v2_json import decode_infer
from tests.cluster.protocols.making import body_with


def outcome(body: bytes, json_length: int | None) -> str:
    """`request`, or the text of the refusal; every other exception fails the test."""
    try:
        decode_infer(body, json_length=json_length, model="m", version="")
    except RequestError as error:
        return error.message
    return "request"


_pieces = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["name", "datatype", "shape", "data", "parameters", "inputs", "binary_data_size"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
_entries = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | _pieces,
        "datatype": st.sampled_from(["FP32", "BF16", "INT8", "BOOL", "BYTES"]) | _pieces,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | _pieces,
        "data": _pieces,
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-1, 9)) | _pieces,
    },
)


@settings(deadline=None)
@given(body=st.binary(max_size=60), json_length=st.none() | st.integers(-2, 70))
@example(body=b'{"inputs":[]}', json_length=13)
def test_any_bytes_are_decoded_or_refused(body: bytes, json_length: int | None) -> None:
    assert outcome(body, json_length)


@settings(deadline=None, max_examples=300)
@given(
    inputs=st.lists(_entries, max_size=2) | _pieces,
    outputs=st.none() | _pieces,
    tail=st.none() | st.binary(max_size=12),
)
def test_any_json_is_decoded_or_refused(inputs: Any, outputs: Any, tail: bytes | None) -> None:
    try:
        text = orjson.dumps({"inputs": inputs, "outputs": outputs})
    except TypeError:  # integers beyond 64 bits: orjson cannot write them
        return
    assert outcome(text + (tail or b""), len(text) if tail is not None else None)


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps({"inputs": [{"name": f"n{i}"} for i in range(50_000)]}),
        orjson.dumps({"outputs": [{"name": f"n{i}"} for i in range(50_000)], "inputs": []}),
        body_with(shape=[200_000], data=[[i] for i in range(200_000)]),
        body_with(shape=[400, 500], data=[[1] * 500] * 400),
        body_with(shape=[2**40], data=..., parameters={"binary_data_size": 0}, datatype="BYTES"),
        body_with(x=[[[]] * 100_000]),
    ],
)
def test_large_bodies_take_linear_time(body: bytes) -> None:
    """Quadratic work takes half a minute and more of each of these. The best of three runs counts:
    in a process that has run thousands of tests, one may meet a collection of all their garbage."""

    def cpu_s() -> float:
        began_s = time.thread_time()
        assert outcome(body, None)
        return time.thread_time() - began_s

    assert cpu_s() < 2.0 or cpu_s() < 2.0 or cpu_s() < 2.0
