"""The generate extension: JSON fields to tensors and parameters, and outputs back."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidRequest
from cluster.protocols.extensions.generate import (
    decode_generate,
    encode_generated,
    error_event,
    event,
)
from cluster.requests import InferenceRequest, InferenceResponse
from cluster.tensors import Signature, TensorSpec, tensor

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="PROMPT", datatype="BYTES", shape=(-1, -1)),
        TensorSpec(name="STREAM", datatype="BOOL", shape=(-1, 1)),
        TensorSpec(name="PAIRS", datatype="INT32", shape=(-1, -1, 2)),
        TensorSpec(name="HEAT", datatype="FP32", shape=(-1, 1)),
    ),
    outputs=(TensorSpec(name="TEXT", datatype="BYTES", shape=(-1, -1)),),
)


def decode(content: object) -> InferenceRequest:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return decode_generate(body, model="m", version="", signature=SIGNATURE)


def arrays(content: object) -> dict[str, Any]:
    return {item.name: item.array.tolist() for item in decode(content).inputs}


def test_fields_with_an_inputs_name_are_inputs_others_are_parameters() -> None:
    asked = decode({"PROMPT": "hi", "STREAM": True, "id": "a", "top_k": 3, "note": "x", "q": None})

    assert [item.array.tolist() for item in asked.inputs] == [[[b"hi"]], [[True]]]
    assert asked.parameters == {"top_k": 3, "note": "x"}
    assert asked.request_id == "a"


def test_the_object_parameters_counts_as_if_its_members_stood_beside_it() -> None:
    asked = decode({"PROMPT": ["hi"], "parameters": {"REPETITION": 3, "STREAM": False}})

    assert [item.name for item in asked.inputs] == ["PROMPT", "STREAM"]
    assert asked.parameters == {"REPETITION": 3}


def test_the_last_free_dimension_takes_the_elements() -> None:
    assert arrays({"PROMPT": ["a", "b", "c"]}) == {"PROMPT": [[b"a", b"b", b"c"]]}
    assert arrays({"PAIRS": [1, 2, 3, 4]}) == {"PAIRS": [[[1, 2], [3, 4]]]}
    assert arrays({"PROMPT": []}) == {"PROMPT": [[]]}
    with pytest.raises(InvalidRequest, match="can not convert input 'PAIRS' to tensor"):
        decode({"PAIRS": [1, 2, 3]})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"PROMPT": 123, "STREAM": False}, "attempt to access JSON non-string as string"),
        ({"PROMPT": "x", "STREAM": "false"}, "attempt to access JSON non-boolean as boolean"),
        ({"STREAM": 123, "PROMPT": True}, "attempt to access JSON non-boolean as boolean"),
        ({"PROMPT": {"USER": "x"}}, "attempt to access JSON non-string as string"),
        ({"PAIRS": [1.5, 2]}, "attempt to access JSON non-signed-integer as signed-integer"),
        ({"HEAT": "warm"}, "attempt to access JSON non-number as number"),
        ({"PAIRS": [2**40, 0]}, "INT32"),
        ({"PARAMS": {"A": 0}}, "parameter 'PARAMS' has invalid type"),
        ({"LIST": [1]}, "parameter 'LIST' has invalid type"),
        ({"triton_x": 1}, "reserved"),
        ({"priority": "high"}, "priority"),
        ({"id": 7}, "'id' must be a string"),
        (b'{"PROMPT": "a", "STREAM": true, "PROMPT": "b"}', "input 'PROMPT' already exists in req"),
        (b'{"HEAT": NaN}', "failed to parse the request JSON"),
        (b"[1]", "must be an object"),
        (b"", "failed to parse"),
        (b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", "invalid type"),
    ],
)
def test_a_mistake_is_refused_with_its_text(content: object, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        decode(content)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("PROMPT"), inner),
    max_leaves=20,
))  # fmt: skip
def test_any_json_is_taken_or_refused_never_more(content: object) -> None:
    try:
        body = orjson.dumps(content)
    except orjson.JSONEncodeError:
        return
    with suppress(InvalidRequest):
        decode(body)


def test_a_single_element_stands_without_its_array() -> None:
    response = InferenceResponse(
        model="m",
        version="3",
        outputs=(
            tensor("ONE", np.array([[b"x"]], object)),
            tensor("TWO", np.array([[1, 2]], np.int32)),
            tensor("NONE", np.zeros((1, 0), np.float32)),
        ),
    )

    assert orjson.loads(encode_generated(response, decode({"id": "i"}))) == {
        "id": "i",
        "model_name": "m",
        "model_version": "3",
        "ONE": "x",
        "TWO": [1, 2],
        "NONE": [],
    }


def test_bytes_that_are_no_text_cannot_be_generated() -> None:
    outputs = (tensor("A", np.array([b"\xff"], object)),)
    response = InferenceResponse(model="m", version="1", outputs=outputs)

    with pytest.raises(InvalidRequest, match="UTF-8"):
        encode_generated(response, decode({}))


def test_an_event_is_one_line_and_a_blank_one() -> None:
    assert event(b"{}") == b"data: {}\n\n"
    assert error_event(InvalidRequest("no\nway")) == b'data: {"error":"no\\nway"}\n\n'
