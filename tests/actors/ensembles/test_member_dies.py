"""Members in processes of their own; one is killed while requests are under way."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client.values
import pytest

from actors.delivery.node_link import NodeLinks
from actors.delivery.transport import NodeFirstTransport
from actors.front_door import FrontDoor
from cluster.config.server import ServerConfig
from cluster.config.squadron import SquadronConfig
from cluster.errors import ShardLost
from cluster.observability.metrics import make_metrics
from cluster.protocols.envelope import Call, Reply
from cluster.requests import InferenceRequest
from cluster.routing.table import VariantRoute, build_table
from cluster.tensors import tensor
from tests.cluster.routing.test_table import CARD, facts

FACTORS = {"a": 1.0, "b": 2.0, "c": 6.0}


@pytest.fixture(autouse=True)
def _own_metrics() -> Iterator[None]:
    before = prometheus_client.values.ValueClass
    yield
    prometheus_client.values.ValueClass = before


class Nowhere:
    """No other node has a replica."""

    def send(self, calls: Sequence[Call], *_: object) -> Awaitable[list[Reply]]:
        raise ShardLost("no replica is left")


@pytest.fixture
def members(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    found = {}
    for name, factor in FACTORS.items():
        (tmp_path / name).mkdir()
        command = [sys.executable, "-m", "tests.actors.ensembles.member_process"]
        found[name] = subprocess.Popen(
            [*command, str(tmp_path / name / "replica.sock"), str(factor), "0.002"],
            stdout=subprocess.PIPE,
            text=True,
        )
    for process in found.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    yield found
    for process in found.values():
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@asynccontextmanager
async def front_door(folder: Path, **combine: Any) -> AsyncIterator[FrontDoor]:
    steps: list[dict[str, Any]] = [{"model": name, "outputs": {"y": name}} for name in FACTORS]
    steps.append({"combine": "mean", "inputs": list(FACTORS), "output": "y", **combine})
    config = SquadronConfig.model_validate(
        {
            "variants": {name: {"card": CARD} for name in FACTORS},
            "ensembles": {"e": {"inputs": ["x"], "outputs": ["y"], "steps": steps}},
        }
    )
    table = build_table(config, {name: facts() for name in FACTORS})
    links: dict[str, NodeLinks] = {}

    def transport(route: VariantRoute) -> NodeFirstTransport:
        links[route.name] = NodeLinks(folder / route.name, rescan_s=0.05)
        return NodeFirstTransport(links[route.name], Nowhere())  # type: ignore[arg-type]

    door = FrontDoor(
        ServerConfig(), table, make_transport=transport, metrics=make_metrics(folder / "metrics")
    )
    yield door
    await door.close()
    for each in links.values():
        each.close()


async def load(
    door: FrontDoor, members: dict[str, subprocess.Popen[str]], num_requests: int
) -> Counter[str]:
    """What 300 requests, 20 at a time, came to; `c` is killed when a third is answered."""
    found: Counter[str] = Counter()
    numbers = iter(range(num_requests))
    x = tensor("x", np.ones((1, 4), np.float32))

    async def caller() -> None:
        for _ in numbers:
            try:
                answer = await door.infer(InferenceRequest(model="e", inputs=(x,)))
                found[f"{answer.output('y').array[0, 0]:g}"] += 1
            except ShardLost:
                found["lost"] += 1
            if sum(found.values()) == num_requests // 3:
                members["c"].kill()

    await asyncio.gather(*(caller() for _ in range(20)))
    return found


async def test_with_a_quorum_of_2_of_3_no_request_fails_when_a_member_is_killed(
    tmp_path: Path, members: dict[str, subprocess.Popen[str]]
) -> None:
    async with front_door(tmp_path, quorum=2, wait_ms=20_000) as door:
        found = await load(door, members, 300)

    assert set(found) == {"3", "1.5"}
    assert sum(found.values()) == 300
    assert found["1.5"] > 100


async def test_without_a_quorum_the_same_death_fails_requests(
    tmp_path: Path, members: dict[str, subprocess.Popen[str]]
) -> None:
    async with front_door(tmp_path) as door:
        found = await load(door, members, 300)

    assert found["lost"] > 100
