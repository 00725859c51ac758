"""Sequences from a door to their replicas, without Ray: real replicas behind real Unix sockets.

The fake engine computes Y = 2 * X + 1 and SEEN = 2 * S + 1, which is carried as S: a sequence's
answers count 1, 3, 7, 15, … from its START.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client.values
import pytest

from actors.delivery.node_link import NodeLinks, NodeListener
from actors.model_replica import ReplicaSetup
from actors.sequences.affinity import NodeFirstReplicas, SequenceDispatcher
from actors.sequences.replica import SequenceReplica
from cluster.config.model_card import ModelCard
from cluster.config.sequences import SequencesConfig
from cluster.config.variant import BatchingConfig
from cluster.errors import DeadlineExceeded, InvalidRequest, SequenceLost, SquadronError
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls
from cluster.requests import SequenceStep
from cluster.tensors import tensor


def setup(folder: Path, **sequences: Any) -> ReplicaSetup:
    column = {"datatype": "INT32", "shape": [-1, 1]}
    card = {
        "name": "counting",
        "format": "fake",
        "signature": {
            "inputs": [{"name": name, **column} for name in ("X", "S")],
            "outputs": [{"name": name, **column} for name in ("Y", "T", "SEEN")],
        },
    }
    state = {"input": "S", "output": "T", "datatype": "INT32", "shape": [1]}
    section = {"strategy": "oldest", "max_sequence_idle_us": 60_000_000, "state": [state]}
    return ReplicaSetup(
        variant="counting",
        card=ModelCard.model_validate(card),
        folder=folder,
        engine="fake",
        device="cpu",
        threads=1,
        is_processed=True,
        batching=BatchingConfig(max_batch_size=4),
        sequences=SequencesConfig.model_validate(section | sequences),
    )


def call(key: int | str, *, rows: int = 1, **flags: bool) -> Call:
    return Call(
        call_id=1,
        rows=rows,
        left_s=30.0,
        inputs=(tensor("X", np.zeros((rows, 1), np.int32)),),
        wanted=("SEEN",),
        sequence=SequenceStep(id=key, **flags),
    )


def seen(reply: Reply) -> int:
    if reply.error is not None:
        raise reply.error
    return int(reply.outputs[0].array[0, 0])


async def asked(replica: SequenceReplica, *calls: Call) -> list[int | str]:
    for number, item in enumerate(calls):
        item.call_id = number
    replies = decode_replies(await replica.infer(encode_calls(calls)))
    by_id = {reply.call_id: reply for reply in replies}
    found: list[int | str] = []
    for number in range(len(calls)):
        error = by_id[number].error
        found.append(error.message if error is not None else seen(by_id[number]))
    return found


Make = Callable[..., SequenceReplica]


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)
    made: list[SequenceReplica] = []

    def build(**sequences: Any) -> SequenceReplica:
        metrics = tmp_path / "metrics"
        replica = SequenceReplica(setup(tmp_path, **sequences), metrics_at=metrics)
        made.append(replica)
        return replica

    yield build
    for replica in made:
        await replica.close()


async def test_state_is_carried_within_a_sequence_and_not_between_them(make: Make) -> None:
    found = await asked(
        make(),
        call("a", is_start=True),
        call("b", is_start=True),
        call("a"),
        call("a"),
        call("b"),
    )

    assert found == [1, 1, 3, 7, 3]


async def test_a_start_begins_anew(make: Make) -> None:
    replica = make()

    assert await asked(replica, call(1, is_start=True), call(1), call(1, is_start=True)) == [
        1,
        3,
        1,
    ]


async def test_direct_rows_that_are_not_ready_harm_nobody(make: Make) -> None:
    replica = make(strategy="direct")
    await asked(replica, call("a", is_start=True), call("b", is_start=True))

    assert await asked(replica, call("b")) == [3]
    assert await asked(replica, call("a")) == [3]


async def test_what_is_wrong_with_one_request_is_its_own_answer(make: Make) -> None:
    found = await asked(make(), call(1), call(2, is_start=True, rows=3), call(3, is_start=True))

    assert "must specify the START flag" in str(found[0])
    assert "must specify batch-size 1" in str(found[1])
    assert found[2] == 1


class Node:
    """Replicas behind sockets in one folder, and doors that look for them there."""

    def __init__(self, folder: Path, make: Make) -> None:
        self._folder = folder
        self._make = make
        self._listeners: dict[str, NodeListener] = {}

    async def start(self, *names: str) -> None:
        for name in names:
            listener = NodeListener(self._folder / f"{name}.sock", self._make().infer)
            await listener.start()
            self._listeners[f"{name}.sock"] = listener

    async def lose(self, name: str) -> None:
        await self._listeners.pop(name).drain()

    async def stop(self) -> None:
        for name in list(self._listeners):
            await self.lose(name)

    def door(self, *, max_waiting: int = 100) -> SequenceDispatcher:
        links = NodeLinks(self._folder, rescan_s=0.0)
        replicas = NodeFirstReplicas(links, "no-deployment", "no-app")
        return SequenceDispatcher(replicas, idle_s=60.0, max_waiting=max_waiting)


@pytest.fixture
async def node(make: Make, tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path / "links", make)
    yield made
    await made.stop()


def soon() -> float:
    return asyncio.get_running_loop().time() + 30


async def ask(door: SequenceDispatcher, key: int | str, **flags: bool) -> int:
    return seen(await door.run(call(key, **flags), deadline_s=soon()))


async def test_requests_that_come_at_once_are_run_in_their_order(node: Node) -> None:
    await node.start("a", "b")
    door = node.door()
    work = [ask(door, key, is_start=n == 0) for n in range(4) for key in range(6)]

    found = await asyncio.gather(*work)

    assert [found[key::6] for key in range(6)] == [[1, 3, 7, 15]] * 6


async def test_a_sequence_stays_where_it_began_when_replicas_come(node: Node) -> None:
    await node.start("a")
    door = node.door()
    assert [await ask(door, key, is_start=True) for key in range(20)] == [1] * 20
    await node.start("b", "c", "d")

    assert [await ask(door, key) for key in range(20)] == [3] * 20


async def test_another_door_finds_a_sequence_that_it_did_not_start(node: Node) -> None:
    await node.start("a")
    first = node.door()
    for key in range(20):
        await ask(first, key, is_start=True)
    await node.start("b", "c")
    other = node.door()

    assert [await ask(other, key) for key in range(20)] == [3] * 20


async def test_with_its_replica_a_sequence_is_lost_and_starts_elsewhere(node: Node) -> None:
    await node.start("a", "b")
    door = node.door()
    for key in range(20):
        await ask(door, key, is_start=True)
    await node.lose("a.sock")
    found: list[int | SquadronError] = []
    for key in range(20):
        try:
            found.append(await ask(door, key))
        except SquadronError as error:
            found.append(error)

    lost = [key for key in range(20) if isinstance(found[key], SequenceLost)]
    assert 0 < len(lost) < 20
    assert [found[key] for key in range(20) if key not in lost] == [3] * (20 - len(lost))
    assert [await ask(door, key, is_start=True) for key in lost] == [1] * len(lost)
    assert [await ask(door, key) for key in lost] == [3] * len(lost)


async def test_a_door_forgets_a_sequence_at_its_end(node: Node) -> None:
    await node.start("a")
    door = node.door()
    await ask(door, 1, is_start=True)
    assert door.num_held == 1
    await ask(door, 1, is_end=True)

    assert door.num_held == 0
    with pytest.raises(InvalidRequest, match="must specify the START flag"):
        await ask(door, 1)
    assert door.num_held == 0


async def test_a_deadline_ends_the_waiting_for_a_turn(node: Node) -> None:
    await node.start("a")
    door = node.door()

    with pytest.raises(DeadlineExceeded):
        await door.run(call(1, is_start=True), deadline_s=asyncio.get_running_loop().time())
