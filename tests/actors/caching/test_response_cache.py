"""The response cache of a door: counted by how often the model was really asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from actors.caching.response_cache import _decoded
from actors.front_door import FrontDoor
from cluster.config.cache import ResponseCacheConfig
from cluster.config.ensemble import EnsembleConfig
from cluster.config.server import ServerConfig
from cluster.config.variant import BatchingConfig
from cluster.errors import EngineFailed, ModelNotFound, NoReadyReplica
from cluster.observability import metrics as node_metrics
from cluster.observability.metrics import make_metrics
from cluster.observability.statistics import NodeSamples
from cluster.protocols.envelope import Call, Reply
from cluster.requests import InferenceRequest, InferenceResponse
from cluster.routing.ensembles.plan import plan_ensemble
from cluster.routing.split import Arm
from cluster.routing.table import (
    EnsembleRoute,
    ExperimentRoute,
    Route,
    RoutingTable,
    VariantFacts,
    VariantRoute,
)
from cluster.tensors import Signature, TensorSpec, tensor
from tests.actors.caching.real_redis import needs_redis, redis_server
from tests.actors.listeners.doors import SUM, Door, body_of, make_door, simple_body

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 1)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),),
)
ON = {"enabled": True}


class Doubling:
    """y = 2 * x, counted. 13 fails."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
        self.num_calls += len(calls)
        await self.open.wait()
        return [_reply(call) for call in calls]


def _reply(call: Call) -> Reply:
    x = call.inputs[0].array
    if (x == 13).any():
        return Reply(call_id=call.call_id, error=EngineFailed("unlucky"))
    return Reply(call_id=call.call_id, outputs=(tensor("y", 2 * x),))


def variant(name: str, **cache: Any) -> VariantRoute:
    facts = VariantFacts(version="1", platform="", backend="", signature=SIGNATURE, is_batched=True)
    return VariantRoute(
        name=name,
        deployment=name,
        facts=facts,
        batching=BatchingConfig(),
        num_replicas=1,
        is_optional=False,
        state="READY",
        response_cache=ResponseCacheConfig.model_validate(cache),
    )


def ensemble(**cache: Any) -> EnsembleRoute:
    """`twice`: y = 4 * x by variant `m`, two times."""
    steps = [
        {"model": "m", "outputs": {"y": "half"}},
        {"model": "m", "inputs": {"x": "half"}, "outputs": {"y": "y"}},
    ]
    config = EnsembleConfig.model_validate({"inputs": ["x"], "outputs": ["y"], "steps": steps})
    plan = plan_ensemble("twice", config, {"m": SIGNATURE}, {})
    return EnsembleRoute(
        name="twice", plan=plan, response_cache=ResponseCacheConfig.model_validate(cache)
    )


@asynccontextmanager
async def front(
    folder: Path, *routes: Route, transport: Doubling, **cache: Any
) -> AsyncIterator[FrontDoor]:
    door = FrontDoor(
        ServerConfig.model_validate({"cache": cache}),
        RoutingTable(version=1, routes={route.name: route for route in routes}),
        make_transport=lambda deployment: transport,
        metrics=make_metrics(folder / "metrics"),
    )
    yield door
    await door.close()


async def ask(
    door: FrontDoor, value: float, model: str = "m", tenant: str = "", **parameters: Any
) -> InferenceResponse:
    x = tensor("x", np.array([[value]], np.float32))
    asked = InferenceRequest(model=model, inputs=(x,), tenant=tenant, parameters=parameters)
    return await door.infer(asked)


def how(answer: InferenceResponse) -> object:
    return answer.parameters.get("squadron_cache")


async def test_a_second_identical_request_is_not_dispatched(tmp_path: Path) -> None:
    transport = Doubling()
    async with front(tmp_path, variant("m", **ON), transport=transport) as door:
        first, second, other = [await ask(door, value) for value in (3, 3, 4)]

    assert [how(answer) for answer in (first, second, other)] == ["miss", "hit", "miss"]
    assert transport.num_calls == 2
    np.testing.assert_array_equal(first.output("y").array, second.output("y").array)
    assert second.output("y").array.tolist() == [[6]]


async def test_a_model_without_the_switch_is_always_asked(tmp_path: Path) -> None:
    transport = Doubling()
    async with front(tmp_path, variant("m"), transport=transport) as door:
        answers = [await ask(door, 3) for _ in range(3)]

    assert transport.num_calls == 3
    assert [how(answer) for answer in answers] == [None] * 3


async def test_a_hundred_identical_requests_are_dispatched_once(tmp_path: Path) -> None:
    transport = Doubling()
    transport.open.clear()
    async with front(tmp_path, variant("m", **ON), transport=transport) as door:
        asked = [asyncio.ensure_future(ask(door, 3)) for _ in range(100)]
        while not transport.num_calls:  # noqa: ASYNC110
            await asyncio.sleep(0)
        transport.open.set()
        answers = await asyncio.gather(*asked)

    assert transport.num_calls == 1
    assert [how(answer) for answer in answers] == ["miss"] + ["shared"] * 99
    assert {answer.output("y").array.item() for answer in answers} == {6}


async def test_an_error_is_not_kept(tmp_path: Path) -> None:
    transport = Doubling()
    async with front(tmp_path, variant("m", **ON), transport=transport) as door:
        for _ in range(2):
            with pytest.raises(EngineFailed, match="unlucky"):
                await ask(door, 13)

    assert transport.num_calls == 2


async def test_tenants_share_answers_unless_the_model_keeps_them_apart(tmp_path: Path) -> None:
    for is_apart, num_calls in ((False, 1), (True, 2)):
        transport = Doubling()
        route = variant("m", **ON, namespace_by_tenant=is_apart)
        async with front(tmp_path, route, transport=transport) as door:
            for tenant in ("a", "b", "a"):
                await ask(door, 3, tenant=tenant)
        assert transport.num_calls == num_calls


async def test_a_request_of_a_sequence_is_never_cached(tmp_path: Path) -> None:
    transport = Doubling()
    async with front(tmp_path, variant("m", **ON), transport=transport) as door:
        answers = [await ask(door, 3, sequence_id=7) for _ in range(2)]

    assert transport.num_calls == 2
    assert [how(answer) for answer in answers] == [None, None]


async def test_a_variant_that_is_gone_does_not_answer_from_the_cache(tmp_path: Path) -> None:
    transport = Doubling()
    route = variant("m", **ON)
    async with front(tmp_path, route, transport=transport) as door:
        await ask(door, 3)
        gone = door.table.with_states({"m": ("UNAVAILABLE", "unloaded")}, version=2)
        door.adopt(gone)
        with pytest.raises(NoReadyReplica):
            await ask(door, 3)


async def test_a_step_of_an_ensemble_is_cached_by_its_own_switch(tmp_path: Path) -> None:
    transport = Doubling()
    async with front(tmp_path, variant("m", **ON), ensemble(), transport=transport) as door:
        answers = [await ask(door, 3, "twice") for _ in range(2)]
        await ask(door, 6)

    assert transport.num_calls == 2
    assert [answer.output("y").array.item() for answer in answers] == [12, 12]
    assert how(answers[1]) is None


async def test_a_whole_ensemble_is_cached_by_its_switch(tmp_path: Path) -> None:
    transport = Doubling()
    async with front(tmp_path, variant("m"), ensemble(**ON), transport=transport) as door:
        answers = [await ask(door, 3, "twice") for _ in range(2)]

    assert transport.num_calls == 2
    assert [how(answer) for answer in answers] == ["miss", "hit"]
    assert [answer.output("y").array.item() for answer in answers] == [12, 12]


async def test_the_counters_carry_tritons_names(tmp_path: Path) -> None:
    async with front(tmp_path, variant("m", **ON), transport=Doubling()) as door:
        for value in (3, 3, 3, 4):
            await ask(door, value)
        door.write_counts()
        node: NodeSamples = node_metrics.node_samples(tmp_path / "metrics")
        text = node_metrics.aggregate(tmp_path / "metrics").decode()

    labels = {"model": "m", "version": "1"}
    assert node.total("nv_cache_num_hits_per_model", **labels) == 2
    assert node.total("nv_cache_num_misses_per_model", **labels) == 2
    assert node.total("nv_cache_hit_duration_per_model", **labels) > 0
    assert node.total("nv_cache_miss_duration_per_model", **labels) > 0
    assert 'nv_cache_num_hits_per_model{model="m",version="1"} 2.0' in text


@needs_redis
async def test_doors_share_answers_through_redis(tmp_path: Path) -> None:
    here, there = Doubling(), Doubling()
    with redis_server(tmp_path) as server:
        shared = {"backend": "redis", "redis": {"url": server.url, "timeout_s": 0.5}}
        route = variant("m", **ON)
        async with (
            front(tmp_path / "1", route, transport=here, **shared) as first,
            front(tmp_path / "2", route, transport=there, **shared) as second,
        ):
            assert how(await ask(first, 3)) == "miss"
            assert first._cache.store.redis is not None
            await first._cache.store.redis.written()
            answers = [await ask(second, 3) for _ in range(2)]
            server.kill()
            after = await ask(second, 4)

    assert [how(answer) for answer in answers] == ["hit", "hit"]
    assert answers[0].output("y").array.item() == 6
    assert how(after) == "miss"
    assert (here.num_calls, there.num_calls) == (1, 1)


@pytest.mark.parametrize(
    "data", [b"", b"rubbish", b"\x01DQS\xff\xff\xff\xff", orjson.dumps([]), bytes(64)]
)
def test_rubbish_in_redis_is_a_miss(data: bytes) -> None:
    assert _decoded(data) is None


async def test_the_http_answer_says_where_it_came_from(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    routes = dict(door.front.table.routes)
    routes["simple"] = variant_with_cache(routes["simple"])
    door.front.adopt(RoutingTable(version=2, routes=routes))

    replies = [await door.ask("POST", "/v2/models/simple/infer", simple_body()) for _ in range(2)]

    assert [dict(reply.headers)["x-squadron-cache"] for reply in replies] == ["miss", "hit"]
    contents = [orjson.loads(body_of(reply)) for reply in replies]
    assert contents[1]["parameters"]["squadron_cache"] == "hit"
    assert contents[1]["outputs"] == contents[0]["outputs"]
    assert contents[1]["outputs"][0]["data"] == SUM
    assert await statistics(door) == {"success": 2, "cache_hit": 1, "cache_miss": 1}


def variant_with_cache(route: Route) -> Route:
    assert isinstance(route, VariantRoute)
    return replace(route, response_cache=ResponseCacheConfig(enabled=True))


async def statistics(door: Door) -> dict[str, int]:
    found = await door.json("GET", "/v2/models/simple/stats")
    counted = found["model_stats"][0]["inference_stats"]
    return {name: counted[name]["count"] for name in ("success", "cache_hit", "cache_miss")}


async def test_a_cached_arm_changes_nothing_in_an_experiments_split(tmp_path: Path) -> None:
    """The quick way declines before it draws; a second draw would favour the other arm."""
    arms = (Arm(variant="m", weight=1), Arm(variant="n", weight=1))
    experiment = ExperimentRoute(name="e", arms=arms, sticky_header="", signature=SIGNATURE)
    routes = (variant("m", **ON), variant("n"), experiment)
    async with front(tmp_path, *routes, transport=Doubling()) as door:
        x = tensor("x", np.array([[3]], np.float32))
        asked = InferenceRequest(model="e", inputs=(x,))
        for _ in range(20):
            assert door.begin(asked, 1, lambda outcome: None) is None
        answers = [await ask(door, 3, "e") for _ in range(40)]

    assert {(answer.variant, how(answer)) for answer in answers} == {
        ("m", "miss"), ("m", "hit"), ("n", None),
    }  # fmt: skip


async def test_a_model_that_was_changed_is_asked_anew(tmp_path: Path) -> None:
    transport = Doubling()
    route = variant("m", **ON)
    async with front(tmp_path, route, ensemble(**ON), transport=transport) as door:
        answers = [await ask(door, 3), await ask(door, 3, "twice")]
        changed = replace(route, facts=replace(route.facts, fingerprint="other weights"))
        door.adopt(RoutingTable(version=2, routes={**door.table.routes, "m": changed}))
        answers += [await ask(door, 3), await ask(door, 3, "twice")]

    assert [how(answer) for answer in answers] == ["miss"] * 4


async def test_an_ensemble_whose_member_was_unloaded_is_not_found(tmp_path: Path) -> None:
    async with front(tmp_path, variant("m"), ensemble(**ON), transport=Doubling()) as door:
        await ask(door, 3, "twice")
        door.adopt(door.table.without(["m"]))

        with pytest.raises(ModelNotFound):
            await ask(door, 3, "twice")
