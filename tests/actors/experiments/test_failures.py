"""A request under an experiment that fails says which arm failed it, and what it is called."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

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


def under_an_experiment(door: Door) -> None:
    config = ExperimentConfig.model_validate({"split": {"simple": 1}})
    route = ExperimentRoute(
        name="e",
        arms=arms_of(config.split),
        sticky_header="x-squadron-user",
        signature=MODELS["simple"][0],
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
