"""A door whose models are loaded anew: where their streams and sequences go, and until when the
old deployment is in use. The replicas are Python objects, no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.front_door import FrontDoor
from actors.sequences.affinity import Replica
from cluster.config.sequences import SequencesConfig
from cluster.config.server import ServerConfig
from cluster.config.variant import BatchingConfig
from cluster.observability.metrics import make_metrics
from cluster.protocols.envelope import Call, Reply, decode_calls, encode_replies
from cluster.requests import InferenceRequest, InferenceResponse
from cluster.routing.table import RoutingTable, VariantFacts, VariantRoute
from cluster.tensors import Signature, TensorSpec, bytes_array, tensor

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", datatype="INT32", shape=(1,)),),
    outputs=(TensorSpec(name="who", datatype="BYTES", shape=(1,)),),
)


def reply_of(deployment: str, call: Call) -> Reply:
    """Says which deployment answered."""
    who = tensor("who", bytes_array([deployment.encode()], (1,)))
    return Reply(call_id=call.call_id, outputs=(who,))


class Streams:
    """Two responses, the second when `go` is set."""

    def __init__(self, deployment: str, go: asyncio.Event) -> None:
        self._deployment = deployment
        self._go = go

    async def stream(self, call: Call) -> AsyncGenerator[Reply, None]:
        yield reply_of(self._deployment, call)
        await self._go.wait()
        yield reply_of(self._deployment, call)


class Replicas:
    """One replica, which answers when `go` is set."""

    is_open = True

    def __init__(self, deployment: str, go: asyncio.Event) -> None:
        self.name = deployment
        self._go = go

    async def of(self, key: int | str) -> Sequence[Replica]:
        return [self]

    async def exchange(self, message: bytes) -> bytes:
        await self._go.wait()
        return encode_replies([reply_of(self.name, call) for call in decode_calls(message)])


class World:
    """A door and its models; `made`: the deployments that a way was made to."""

    def __init__(self, folder: Path) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.made: list[str] = []
        self.door = FrontDoor(
            ServerConfig(),
            self.table(version=1),
            make_transport=self._never,
            metrics=make_metrics(folder / "metrics"),
            make_streams=lambda route: Streams(self._noted(route), self.go),
            make_sequences=lambda route: Replicas(self._noted(route), self.go),
        )

    def table(self, *, version: int) -> RoutingTable:
        """With models `counter` (decoupled) and `adder` (of sequences), deployed anew."""
        facts = VariantFacts(
            version="1", platform="", backend="", signature=SIGNATURE, is_batched=False
        )
        counter = VariantRoute(
            name="counter",
            deployment=f"counter-{version}",
            facts=replace(facts, is_decoupled=True),
            batching=BatchingConfig(),
            num_replicas=1,
            is_optional=False,
            state="READY",
        )
        adder = replace(
            counter,
            name="adder",
            deployment=f"adder-{version}",
            facts=facts,
            sequences=SequencesConfig(),
        )
        return RoutingTable(version=version, routes={"counter": counter, "adder": adder})

    def stream(self) -> AsyncGenerator[InferenceResponse, None]:
        return self.door.stream(_request("counter"))

    async def step(self, **flags: bool) -> str:
        answer = await self.door.infer(_request("adder", sequence_id=7, **flags))
        return _who(answer)

    def _noted(self, route: VariantRoute) -> str:
        self.made.append(route.deployment)
        return route.deployment

    def _never(self, route: VariantRoute) -> None:
        raise AssertionError(route)


def _request(model: str, **parameters: int) -> InferenceRequest:
    x = tensor("x", np.zeros(1, np.int32))
    return InferenceRequest(model=model, inputs=(x,), parameters={**parameters})


def _who(answer: InferenceResponse) -> str:
    return bytes(answer.output("who").array.item()).decode()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with _closing(World(tmp_path)) as made:
        yield made


@asynccontextmanager
async def _closing(world: World) -> AsyncIterator[World]:
    yield world
    await world.door.close()


async def test_a_sequence_goes_to_the_deployment_that_the_table_names(world: World) -> None:
    assert await world.step(sequence_start=True) == "adder-1"
    assert await world.step() == "adder-1"

    world.door.adopt(world.table(version=2))

    assert await world.step(sequence_start=True) == "adder-2"
    assert world.made == ["adder-1", "adder-2"]


async def test_a_deployment_is_in_use_until_its_sequences_requests_are_answered(
    world: World,
) -> None:
    world.go.clear()
    under_way = asyncio.create_task(world.step(sequence_start=True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert world.door.is_at_rest()
    world.door.adopt(world.table(version=2))
    assert not world.door.is_at_rest()
    world.go.set()

    assert await under_way == "adder-1"
    assert world.door.is_at_rest()


async def test_a_deployment_is_in_use_until_its_streams_have_ended(world: World) -> None:
    world.go.clear()
    stream = world.stream()
    first = await anext(stream)

    assert world.door.is_at_rest()
    world.door.adopt(world.table(version=2))
    assert not world.door.is_at_rest()
    world.go.set()
    rest = [_who(answer) async for answer in stream]

    assert [_who(first), *rest] == ["counter-1", "counter-1"]
    assert world.door.is_at_rest()


async def test_what_is_loaded_again_and_again_leaves_no_transports(world: World) -> None:
    for version in range(2, 8):
        assert [_who(answer) async for answer in world.stream()] == [f"counter-{version - 1}"] * 2
        assert await world.step(sequence_start=True) == f"adder-{version - 1}"
        world.door.adopt(world.table(version=version))

    assert len(world.door._streams._transports) == 0
    assert len(world.door._sequences._dispatchers) == 0
    assert world.door.is_at_rest()
