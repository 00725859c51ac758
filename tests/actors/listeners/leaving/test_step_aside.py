"""A gRPC door leaves its port while callers use it: two processes, public clients."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.actors.listeners.test_grpc import SERVICE, simple_request
from tests.actors.listeners.test_port_claim import free_port

ASKED = simple_request().SerializeToString()
# Channels of one process share their connections otherwise.
OWN = [("grpc.use_local_subchannel_pool", 1)]


@contextmanager
def door(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.actors.listeners.leaving.one_door"]
    process = subprocess.Popen(
        [*command, str(folder), str(port)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def call(channel: grpc.aio.Channel, seen: Counter[str]) -> None:
    try:
        await channel.unary_unary(SERVICE + "ModelInfer")(ASKED)
        seen["OK"] += 1
    except grpc.aio.AioRpcError as error:
        seen[f"{error.code().name}: {error.details()}"] += 1


async def caller(port: int, stop: asyncio.Event, seen: Counter[str], *, is_kept: bool) -> None:
    while not stop.is_set():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OWN) as channel:
            await call(channel, seen)
            while is_kept and not stop.is_set():
                await asyncio.gather(*(call(channel, seen) for _ in range(3)))


@pytest.mark.skipif(sys.platform != "linux", reason="a process sees its sockets on Linux only")
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept channels", "a channel for each call"])
async def test_a_door_that_leaves_loses_no_call(tmp_path: Path, is_kept: bool) -> None:
    port = free_port()
    stop, seen = asyncio.Event(), Counter[str]()
    with door(tmp_path, port) as old:
        callers = [asyncio.create_task(caller(port, stop, seen, is_kept=is_kept)) for _ in range(4)]
        await asyncio.sleep(0.5)
        with door(tmp_path, port):
            await asyncio.sleep(0.5)
            old.terminate()
            assert await asyncio.to_thread(old.wait, 60) == 0
            before = seen["OK"]
            await asyncio.sleep(0.5)
            stop.set()
            await asyncio.gather(*callers)

    assert dict(seen) == {"OK": seen["OK"]}
    assert seen["OK"] > before > 10


async def test_the_last_door_waits_for_nobody(tmp_path: Path) -> None:
    """Its callers could go nowhere: a connection that is held open does not hold it up."""
    port = free_port()
    seen = Counter[str]()
    with door(tmp_path, port) as only:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OWN) as channel:
            await call(channel, seen)
            only.terminate()
            assert await asyncio.to_thread(only.wait, 60) == 0

    assert seen == {"OK": 1}
