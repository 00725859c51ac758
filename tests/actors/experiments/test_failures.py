"""A request under an experiment that fails says which arm failed it, and what it is called."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from tritonclient.grpc import service_pb2

from actors.listeners.http_messages import HttpReply, HttpRequest
from cluster.config.experiment import ExperimentConfig
from cluster.errors import EngineFailed
from cluster.protocols.envelope import Call, Reply
from cluster.routing.table import ExperimentRoute, RoutingTable, arms_of
from tests.actors.listeners.doors import MODELS, Door, grpc_listening, make_door, simple_body
from tests.actors.listeners.test_grpc import simple_request

TOLD = {"x-squadron-variant": "simple", "x-request-id": "mine"}


class Failing:
    """A transport whose far end fails."""

    async def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
        return [Reply(call_id=call.call_id, error=EngineFailed("it broke")) for call in calls]


def under_an_experiment(door: Door, arm: str = "simple") -> None:
    config = ExperimentConfig.model_validate({"split": {arm: 1}})
    route = ExperimentRoute(
        name="e",
        arms=arms_of(config.split),
        sticky_header="x-squadron-user",
        signature=MODELS[arm][0],
        config=config,
    )
    door.front.adopt(RoutingTable(version=2, routes={**door.front.table.routes, "e": route}))


@pytest.mark.parametrize("is_quick", [True, False])
def test_over_http_in_the_headers(tmp_path: Path, is_quick: bool) -> None:
    async def run() -> HttpReply:
        door = make_door(tmp_path, transport=Failing())
        under_an_experiment(door)
        headers = {"host": "localhost", "x-request-id": "mine"}
        path, body = "/v2/models/e/infer", simple_body()
        request = HttpRequest(method="POST", path=path, headers=headers, body=body)
        # A path is known from its second request on.
        first = await door.routes.answer(request)
        assert isinstance(first, HttpReply)
        if not is_quick:
            return first
        replied: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()
        assert door.routes.begin(request, replied.set_result) is not None
        return await replied

    reply = asyncio.run(run())

    assert reply.status == 500
    assert orjson.loads(b"".join(map(bytes, reply.chunks))) == {"error": "it broke"}
    assert TOLD.items() <= dict(reply.headers).items()


def test_over_grpc_in_the_trailing_metadata(tmp_path: Path) -> None:
    async def run() -> dict[str, Any]:
        async with grpc_listening(tmp_path, transport=Failing()) as (door, port):
            under_an_experiment(door)
            asked = simple_request()
            asked.model_name = "e"
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(asked.SerializeToString(), metadata=(("x-request-id", "mine"),))
            return dict(caught.value.trailing_metadata() or ())

    assert TOLD.items() <= asyncio.run(run()).items()


async def streamed(
    folder: Path, metadata: Sequence[tuple[str, str]] = (), *, transport: Any = None, **more: Any
) -> list[service_pb2.ModelStreamInferResponse]:
    """Two requests, of which the first has an id, in one stream."""
    async with grpc_listening(folder, transport=transport, **more) as (door, port):
        under_an_experiment(door)
        asked = [simple_request(id="mine"), simple_request()]
        for each in asked:
            each.model_name = "e"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            messages = iter([each.SerializeToString() for each in asked])
            data = [part async for part in call(messages, metadata=metadata)]
    return [service_pb2.ModelStreamInferResponse.FromString(part) for part in data]


def told_by(response: service_pb2.ModelStreamInferResponse) -> tuple[str, str]:
    parameters = response.infer_response.parameters
    return (
        parameters["squadron_variant"].string_param,
        parameters["squadron_request_id"].string_param,
    )


@pytest.mark.parametrize("transport", [Failing(), None])
async def test_over_a_grpc_stream_in_each_responses_parameters(
    tmp_path: Path, transport: Any
) -> None:
    first, second = await streamed(tmp_path, transport=transport)

    texts = {first.error_message, second.error_message}
    assert texts == ({"it broke"} if transport is not None else {""})
    assert told_by(first) == ("simple", "mine")
    arm, made = told_by(second)
    assert arm == "simple"
    assert made not in ("", "mine")


async def test_over_a_grpc_stream_an_answer_that_is_too_large_is_told_of_like_others(
    tmp_path: Path,
) -> None:
    first, _ = await streamed(tmp_path, limits={"max_response_bytes": 64})

    assert first.error_message.startswith("the answer has")
    assert told_by(first) == ("simple", "mine")


async def test_a_stream_of_grpcs_own_errors_has_it_in_the_trailing_metadata(
    tmp_path: Path,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await streamed(tmp_path, [("triton_grpc_error", "true")], transport=Failing())

    assert TOLD.items() <= dict(caught.value.trailing_metadata() or ()).items()


@pytest.mark.parametrize("way", ["generate", "generate_stream"])
async def test_what_generates_tells_it_as_well(tmp_path: Path, way: str) -> None:
    door = make_door(tmp_path, transport=Failing())
    under_an_experiment(door, "shout")

    path = f"/v2/models/e/{way}"
    reply = await door.ask("POST", path, {"text_input": "a"}, x_request_id="mine")

    assert reply.status == 500
    assert {**TOLD, "x-squadron-variant": "shout"}.items() <= dict(reply.headers).items()


@pytest.mark.parametrize("way", ["infer", "generate", "generate_stream"])
async def test_an_answer_that_is_too_large_leaves_who_made_it(tmp_path: Path, way: str) -> None:
    door = make_door(tmp_path, limits={"max_response_bytes": 64})
    under_an_experiment(door, "shout")
    text = "a" * 100
    given = {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
    body = {"inputs": [given]} if way == "infer" else {"text_input": text}

    reply = await door.ask("POST", f"/v2/models/e/{way}", body, x_request_id="mine")

    assert reply.status == 413
    assert {**TOLD, "x-squadron-variant": "shout"}.items() <= dict(reply.headers).items()
