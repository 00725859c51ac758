"""Answers above `limits.max_response_bytes`: refused on every way that leads to a caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from actors.listeners.http_messages import HttpReply, HttpRequest
from actors.listeners.routes.generate import GenerateRoutes
from actors.listeners.routes.infer import InferRoutes
from actors.listeners.routes.openai.generation import GenerationRoutes
from cluster.protocols.grpc_schema import SERVICE, message_class
from cluster.requests import InferenceRequest, InferenceResponse
from cluster.tensors import bytes_array, tensor
from tests.actors.listeners.doors import SUM, Door, body_of, grpc_door, make_door, simple_body

INFER = "/v2/models/simple/infer"
LIMITS = {"limits": {"max_response_bytes": 600}}
"""One row of `simple` fits in JSON, eight do not."""


def wants(rows: int, request_id: str = "") -> bytes:
    request = message_class("inference.ModelInferRequest")(model_name="simple", id=request_id)
    for name in ("INPUT0", "INPUT1"):
        request.inputs.add(name=name, datatype="INT32", shape=[rows, 16])
        request.raw_input_contents.append(b"\1\0\0\0" * 16 * rows)
    data: bytes = request.SerializeToString()
    return data


async def quickly(door: Door, body: bytes) -> HttpReply:
    """By the way without a task."""
    found: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()
    request = HttpRequest(method="POST", path=INFER, headers={}, body=body)
    door.routes._place(INFER)
    assert door.routes.begin(request, found.set_result) is not None
    return await found


async def test_over_http_the_error_stands_in_the_answer_s_place(tmp_path: Path) -> None:
    door = make_door(tmp_path, **LIMITS)

    for ask in (lambda body: door.ask("POST", INFER, body), lambda body: quickly(door, body)):
        fits = await ask(simple_body(rows=1))
        reply = await ask(simple_body(rows=8))
        told = orjson.loads(body_of(reply))["error"]
        assert orjson.loads(body_of(fits))["outputs"][0]["data"] == SUM
        assert reply.status == 413
        assert told.startswith("the answer has ")
        assert "at most 600 are sent (limits.max_response_bytes)" in told


async def test_what_counts_is_the_answer_before_it_is_compressed(tmp_path: Path) -> None:
    door = make_door(tmp_path, **LIMITS)

    status, _ = await door.refusal("POST", INFER, simple_body(rows=8), accept_encoding="gzip")

    assert status == 413


async def test_over_grpc_the_call_ends_and_a_stream_goes_on(tmp_path: Path) -> None:
    infer, stream = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer"
    asked = [wants(1, "a"), wants(8, "b"), wants(1, "c")]
    async with grpc_door(tmp_path, **LIMITS) as (_, channel):
        assert await channel.unary_unary(infer)(wants(1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(infer)(wants(8))
        answers = [
            message_class("inference.ModelStreamInferResponse").FromString(data)
            async for data in channel.stream_stream(stream)(iter(asked))
        ]

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "limits.max_response_bytes" in (caught.value.details() or "")
    assert [each.infer_response.id for each in answers] == ["a", "b", "c"]
    assert ["limits.max_response_bytes" in each.error_message for each in answers] == [
        False,
        True,
        False,
    ]


async def test_of_a_stream_over_http_each_event_is_counted(tmp_path: Path) -> None:
    door = make_door(tmp_path, **LIMITS)
    route = "/v2/models/shout/generate_stream"
    status, _ = await door.refusal("POST", route, {"text_input": "x" * 700})
    infer = InferRoutes(door.front, door.offered.shared_memory)
    asked = InferenceRequest(model="shout", inputs=())

    v2 = [part async for part in GenerateRoutes(door.front, infer)._events(b"", responses(), asked)]
    openai = [
        part
        async for part in GenerationRoutes(door.front, infer)._events(b"first", "v", responses())
    ]

    assert status == 413
    assert b'"text_output":"short"' in v2[0]
    assert b"limits.max_response_bytes" in v2[1]
    assert openai[:2] == [b"first", b"short"]
    assert b"limits.max_response_bytes" in openai[2]
    assert openai[2].endswith(b"data: [DONE]\n\n")
    assert len(v2) == 2
    assert len(openai) == 3


async def responses() -> AsyncGenerator[InferenceResponse, None]:
    for text in (b"short", b"long" * 200, b"never reached"):
        yield InferenceResponse(
            model="shout",
            version="1",
            variant="shout",
            outputs=(tensor("text_output", bytes_array([text], (1,))),),
        )


async def test_it_is_counted_by_variant(tmp_path: Path) -> None:
    door = make_door(tmp_path, **LIMITS)
    for _ in range(2):
        await door.ask("POST", INFER, simple_body(rows=8))

    scraped: Any = (await door.ask("GET", "/metrics")).chunks
    assert b'squadron_door_answers_too_large_total{variant="simple"} 2.0' in b"".join(scraped)
