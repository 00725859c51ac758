"""Batches over Unix sockets: between two ends of one test, no Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.delivery.node_link import Frame, NodeLinks, NodeListener
from actors.delivery.withdrawals import Withdrawals
from cluster.errors import ShardLost


async def upper(frame: Frame, *_: object) -> bytes:
    return bytes(frame).upper()


async def replica(folder: Path, name: str = "a") -> NodeListener:
    listener = NodeListener(folder / f"{name}.sock", upper)
    await listener.start()
    return listener


async def ask(links: NodeLinks, frame: bytes) -> Frame:
    link = await links.least_busy()
    assert link is not None
    return await link.exchange(frame)


async def test_without_a_replica_on_the_node_there_is_no_link(tmp_path: Path) -> None:
    assert await NodeLinks(tmp_path / "none").least_busy() is None


async def test_batches_are_answered_each_with_its_own_also_large_ones(tmp_path: Path) -> None:
    listener = await replica(tmp_path)
    links = NodeLinks(tmp_path)
    frames = [b"%d" % n + b"x" * (n * 100_000) for n in range(12)]

    answers = await asyncio.gather(*(ask(links, frame) for frame in frames))

    assert answers == [frame.upper() for frame in frames]
    links.close()
    await listener.drain()


async def test_the_least_busy_replica_gets_the_next_batch(tmp_path: Path) -> None:
    seen: list[str] = []
    go = asyncio.Event()

    def answering(name: str) -> NodeListener:
        async def answer(frame: Frame, *_: object) -> bytes:
            seen.append(name)
            await go.wait()
            return bytes(frame)

        return NodeListener(tmp_path / f"{name}.sock", answer)

    listeners = [answering("a"), answering("b")]
    for listener in listeners:
        await listener.start()
    links = NodeLinks(tmp_path)

    asked = [asyncio.create_task(ask(links, b"x")) for _ in range(4)]
    await asyncio.sleep(0.05)

    assert sorted(seen) == ["a", "a", "b", "b"]
    go.set()
    await asyncio.gather(*asked)
    links.close()
    for listener in listeners:
        await listener.drain()


async def test_a_replica_that_goes_before_it_answers_is_lost_and_told(tmp_path: Path) -> None:
    async def never(frame: Frame, *_: object) -> bytes:
        raise RuntimeError("a bug")

    listener = NodeListener(tmp_path / "a.sock", never)
    await listener.start()
    links = NodeLinks(tmp_path)

    with pytest.raises(ShardLost):
        await ask(links, b"x")

    await listener.drain()
    links.close()


async def test_a_draining_replica_answers_what_came_and_gets_nothing_new(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(frame: Frame, *_: object) -> bytes:
        await go.wait()
        return bytes(frame)

    listener = NodeListener(tmp_path / "a.sock", slow)
    await listener.start()
    links = NodeLinks(tmp_path)
    asked = asyncio.create_task(ask(links, b"x"))
    await asyncio.sleep(0.05)

    draining = asyncio.create_task(listener.drain())
    await asyncio.sleep(0.05)
    assert await links.least_busy() is None
    go.set()

    assert await asked == b"x"
    await draining


async def test_a_socket_left_by_a_killed_process_is_cleared_away(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))

    assert await NodeLinks(tmp_path).least_busy() is None
    assert not (tmp_path / "dead.sock").exists()


async def test_a_replica_that_comes_later_is_found(tmp_path: Path) -> None:
    links = NodeLinks(tmp_path, rescan_s=0.0)
    assert await links.least_busy() is None

    listener = await replica(tmp_path)

    assert await ask(links, b"hello") == b"HELLO"
    links.close()
    await listener.drain()


async def test_what_nobody_waits_for_is_called_back(tmp_path: Path) -> None:
    began, called_back = asyncio.Event(), asyncio.Event()

    async def slow(frame: Frame, *_: object) -> bytes:
        if frame == b"quick":
            return bytes(frame)
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            called_back.set()
        return bytes(frame)

    listener = NodeListener(tmp_path / "a.sock", slow)
    await listener.start()
    links = NodeLinks(tmp_path)
    asked = asyncio.create_task(ask(links, b"x"))
    await asyncio.wait_for(began.wait(), 5)

    asked.cancel()

    await asyncio.wait_for(called_back.wait(), 5)
    assert await ask(links, b"quick") == b"quick"
    links.close()
    await listener.drain()


async def test_a_call_that_is_withdrawn_is_told_to_who_has_its_envelope_and_to_nobody_else(
    tmp_path: Path,
) -> None:
    told: dict[bytes, list[int]] = {b"a": [], b"b": []}
    go = asyncio.Event()

    async def slow(frame: Frame, withdrawals: Withdrawals) -> bytes:
        withdrawals.follow(told[bytes(frame)].append)
        await go.wait()
        return bytes(frame)

    listener = NodeListener(tmp_path / "a.sock", slow)
    await listener.start()
    links = NodeLinks(tmp_path)
    link = await links.least_busy()
    assert link is not None
    of_a, of_b = Withdrawals(), Withdrawals()
    of_b.add(2**63)  # before it was sent
    asked = [
        asyncio.create_task(link.exchange(b"a", of_a)),
        asyncio.create_task(link.exchange(b"b", of_b)),
    ]
    await asyncio.sleep(0)
    of_a.add(7)
    async with asyncio.timeout(5):
        while not all(told.values()):  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)
    go.set()

    assert await asyncio.gather(*asked) == [b"a", b"b"]
    of_a.add(8)  # after it was answered: nobody has it
    assert await ask(links, b"a") == b"a"
    assert told == {b"a": [7], b"b": [2**63]}
    links.close()
    await listener.drain()


async def test_a_door_that_goes_calls_all_its_exchanges_back(tmp_path: Path) -> None:
    began, called_back = asyncio.Event(), asyncio.Event()

    async def slow(frame: Frame, *_: object) -> bytes:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            called_back.set()
        return bytes(frame)

    listener = NodeListener(tmp_path / "a.sock", slow)
    await listener.start()
    links = NodeLinks(tmp_path)
    asked = asyncio.create_task(ask(links, b"x"))
    await asyncio.wait_for(began.wait(), 5)

    links.close()

    await asyncio.wait_for(called_back.wait(), 5)
    with pytest.raises(ShardLost):
        await asked
    await listener.drain()
