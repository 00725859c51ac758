from __future__ import annotations

import json

import numpy as np
import pytest

from cluster.protocols import v2_json
from loadtests.generator import http_request
from loadtests.works import WORKS, Encoding

SENT = [
    *((name, "binary") for name in WORKS),
    ("identity", "json"),
    ("minilm-int8", "json"),
]


@pytest.mark.parametrize(("name", "encoding"), SENT)
def test_every_encoding_of_a_work_is_the_same_tensors_to_squadron(
    name: str, encoding: Encoding
) -> None:
    work = WORKS[name]
    body = work.v2(encoding)
    length = body.headers.get("inference-header-content-length")

    asked = v2_json.decode_infer(
        body.content, json_length=int(length) if length else None, model=name, version=""
    )

    found = {tensor.name: tensor.array for tensor in asked.inputs}
    for tensor, array in work.inputs().items():
        np.testing.assert_array_equal(found[tensor], array)


def test_the_deadline_goes_as_a_parameter_in_microseconds() -> None:
    content = json.loads(WORKS["identity"].v2(timeout_us=50_000).content)

    assert content["parameters"] == {"timeout": 50_000}


def test_a_bare_body_is_the_tensors_one_after_the_other() -> None:
    work = WORKS["minilm-int8"]
    body = work.bare()

    assert len(body.content) == 3 * 32 * 8
    assert np.frombuffer(body.content, np.int64)[:32].tolist() == (
        work.inputs()["input_ids"][0].tolist()
    )


def test_a_request_goes_over_the_wire_with_its_length_and_headers() -> None:
    assert http_request("/x", b"abc", {"a": "b"}) == (
        b"POST /x HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 3\r\na: b\r\n\r\nabc"
    )
