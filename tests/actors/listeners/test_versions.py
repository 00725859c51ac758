"""Several versions under one name, over both transports without a model process."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import orjson
import pytest
from tritonclient.grpc import service_pb2

from actors.listeners.http_messages import HttpReply, HttpRequest
from cluster.routing.table import RoutingTable, VariantRoute
from tests.actors.listeners.doors import Door, body_of, grpc_door, make_door, simple_body
from tests.actors.listeners.test_grpc import SERVICE, simple_request


def serve_two(door: Door) -> None:
    """`simple` is version 2; `simple-v1` is its version 1 and computes the same."""
    table = door.front.table
    route = table.routes["simple"]
    assert isinstance(route, VariantRoute)
    newest = replace(route, facts=replace(route.facts, version="2"))
    older = replace(route, name="simple-v1", version_of="simple")
    routes = {**table.routes, "simple": newest, "simple-v1": older}
    door.front.adopt(RoutingTable(version=2, routes=routes))


@pytest.fixture
async def door(tmp_path: Path) -> Door:
    made = make_door(tmp_path)
    serve_two(made)
    return made


@pytest.mark.parametrize(
    ("place", "version", "variant"),
    [
        ("simple", "2", "simple"),
        ("simple/versions/2", "2", "simple"),
        ("simple/versions/1", "1", "simple-v1"),
    ],
)
async def test_a_path_with_a_version_reaches_its_variant(
    door: Door, place: str, version: str, variant: str
) -> None:
    answer = await door.json("POST", f"/v2/models/{place}/infer", simple_body())

    assert (answer["model_name"], answer["model_version"]) == ("simple", version)
    assert answer["parameters"]["squadron_variant"] == variant
    assert (await door.ask("GET", f"/v2/models/{place}/ready")).status == 200


async def test_the_quick_way_reaches_it_too(door: Door) -> None:
    # The first request of a path is looked up and answered the long way.
    await door.json("POST", "/v2/models/simple/versions/1/infer", simple_body())
    found: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()
    request = HttpRequest(
        method="POST",
        path="/v2/models/simple/versions/1/infer",
        headers={"host": "localhost:8000", "content-type": "application/json"},
        body=simple_body(),
        is_local=True,
    )
    assert door.routes.begin(request, found.set_result) is not None

    reply = await found
    answer = orjson.loads(body_of(reply))
    assert (answer["model_name"], answer["model_version"]) == ("simple", "1")
    assert ("x-squadron-variant", "simple-v1") in reply.headers


async def test_a_version_that_is_not_served_is_not_found(door: Door) -> None:
    for path in ("infer", "ready", "config", "stats"):
        method = "POST" if path == "infer" else "GET"
        status, text = await door.refusal(
            method, f"/v2/models/simple/versions/3/{path}", simple_body()
        )
        assert (status, text) == (
            404, "Request for unknown model: 'simple' version 3 is not found",
        )  # fmt: skip


async def test_metadata_index_and_statistics_list_every_version(door: Door) -> None:
    await door.json("POST", "/v2/models/simple/versions/1/infer", simple_body())

    for place in ("simple", "simple/versions/1"):
        metadata = await door.json("GET", f"/v2/models/{place}")
        assert metadata["versions"] == ["1", "2"]
    index = await door.json("POST", "/v2/repository/index")
    assert [(each["name"], each["version"]) for each in index] == [
        ("shout", "1"), ("simple", "1"), ("simple", "2"), ("simple_identity", "1"),
    ]  # fmt: skip
    stats = (await door.json("GET", "/v2/models/simple/stats"))["model_stats"]
    counted = {each["version"]: each["inference_stats"]["success"]["count"] for each in stats}
    assert counted == {"1": 1, "2": 0}
    (one,) = (await door.json("GET", "/v2/models/simple/versions/1/stats"))["model_stats"]
    assert one["version"] == "1"


async def test_grpc_says_the_same(tmp_path: Path) -> None:
    async with grpc_door(tmp_path) as (door, channel):
        serve_two(door)
        infer = channel.unary_unary(SERVICE + "ModelInfer")
        answers = [
            service_pb2.ModelInferResponse.FromString(
                await infer(simple_request(model_version=version).SerializeToString())
            )
            for version in ("", "1", "2")
        ]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(simple_request(model_version="3").SerializeToString())
        asked = service_pb2.ModelMetadataRequest(name="simple").SerializeToString()
        data = await channel.unary_unary(SERVICE + "ModelMetadata")(asked)

    assert [each.model_version for each in answers] == ["2", "1", "2"]
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert list(service_pb2.ModelMetadataResponse.FromString(data).versions) == ["1", "2"]
