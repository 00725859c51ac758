"""The generate routes over a door without Ray; decoupled models are in the end-to-end tests."""

from __future__ import annotations

import gzip
from pathlib import Path

import orjson
import pytest

from tests.actors.listeners.doors import body_of, make_door

GENERATE = "/v2/models/shout/generate"


async def test_a_plain_model_answers_generate_and_generate_stream(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    told = {"model_name": "shout", "model_version": "1", "text_output": "HI"}

    assert await door.json("POST", GENERATE, {"text_input": "hi"}) == told
    streamed = await door.ask("POST", f"{GENERATE}_stream", {"text_input": "hi"})
    assert streamed.content_type == "text/event-stream; charset=utf-8"
    assert body_of(streamed) == b"data: " + orjson.dumps(told) + b"\n\n"


@pytest.mark.parametrize("route", ["generate", "generate_stream"])
async def test_errors_before_the_first_response_are_ordinary_ones(
    tmp_path: Path, route: str
) -> None:
    door = make_door(tmp_path)

    status, text = await door.refusal("POST", f"/v2/models/shout/{route}", {"other": 1})
    assert (status, text[:29]) == (400, "expected 1 inputs but got 0 i")
    status, text = await door.refusal("POST", f"/v2/models/none/{route}", {})
    assert (status, text) == (404, "Request for unknown model: 'none' is not found")
    status, _ = await door.refusal("POST", f"/v2/models/shout/versions/9/{route}", {})
    assert status == 404


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
async def test_a_compressed_body_is_refused(tmp_path: Path, coding: str) -> None:
    body = gzip.compress(b'{"text_input": "hi"}')

    status, text = await make_door(tmp_path).refusal(
        "POST", GENERATE, body, content_encoding=coding
    )
    assert (status, text.split(" is ")[0]) == (400, f"Content-Encoding '{coding}'")


async def test_openapi_lists_the_routes(tmp_path: Path) -> None:
    paths = (await make_door(tmp_path).json("GET", "/openapi.json"))["paths"]

    answer = paths["/v2/models/{model}/generate_stream"]["post"]["responses"]["200"]
    assert list(answer["content"]) == ["text/event-stream"]
    assert "/v2/models/{model}/versions/{version}/generate" in paths
