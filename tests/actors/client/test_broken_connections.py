"""A connection that breaks on the way: the call is made again, or told by the server's address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from cluster.client import AsyncClient, Client
from cluster.errors import DeadlineExceeded, NoReadyReplica
from tests.actors.client.doors import http_door
from tests.actors.listeners.doors import numbers

A, B = numbers(2), np.ones((2, 16), np.int32)


class Line:
    """Bytes to the door and back; `num_cut` connections are hung up on as soon as they say
    something, and while `is_mute` nothing comes back."""

    def __init__(self, door_port: int) -> None:
        self._door_port = door_port
        self.num_cut = 0
        self.is_mute = False
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        from_door, onward = await asyncio.open_connection("127.0.0.1", self._door_port)
        back = asyncio.create_task(_pass_on(from_door, writer))
        try:
            while data := await reader.read(65536):
                if self.num_cut:
                    self.num_cut -= 1
                    return
                if not self.is_mute:
                    onward.write(data)
        except ConnectionError:
            # Hung up on by the caller: nothing more to pass on.
            return
        finally:
            del self._open[task]
            onward.close()
            writer.close()
            await back

    async def close(self) -> None:
        # Not cancelled: asyncio's own callback of a connection chokes on that.
        for writer in self._open.values():
            writer.close()
        await asyncio.gather(*self._open)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What the door says, until either end is closed."""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)


@asynccontextmanager
async def line(folder: Path) -> AsyncIterator[tuple[Line, str]]:
    async with http_door(folder) as (_, url):
        made = Line(int(url.rpartition(":")[2]))
        server = await asyncio.start_server(made.join, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield made, f"http://127.0.0.1:{port}"
        finally:
            server.close()
            await made.close()


async def test_a_call_whose_connection_broke_is_made_again(tmp_path: Path) -> None:
    async with line(tmp_path) as (made, url):

        def work() -> None:
            with Client(url, retries=3) as client:
                model = client.load_model("simple")
                made.num_cut = 2
                assert np.array_equal(model.predict(INPUT0=A, INPUT1=B)["OUTPUT0"], A + B)

        await asyncio.to_thread(work)
        assert made.num_cut == 0

        async with AsyncClient(url, retries=3) as client:
            model = await client.load_model("simple")
            made.num_cut = 2
            answer = await model.predict(INPUT0=A, INPUT1=B)
        assert np.array_equal(answer["OUTPUT0"], A + B)


async def test_more_breaks_than_retries_are_told_by_the_address(tmp_path: Path) -> None:
    async with line(tmp_path) as (made, url):

        def work() -> None:
            with Client(url, retries=1) as client:
                model = client.load_model("simple")
                made.num_cut = 5
                with pytest.raises(NoReadyReplica, match=url):
                    model.predict(INPUT0=A, INPUT1=B)

        await asyncio.to_thread(work)
        assert made.num_cut == 3


async def test_a_server_that_says_nothing_is_not_asked_twice(tmp_path: Path) -> None:
    async with line(tmp_path) as (made, url):

        def work() -> None:
            with Client(url, retries=5, timeout_s=0.5) as client:
                made.is_mute = True
                with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.5 s"):
                    client.load_model("simple")

        await asyncio.to_thread(work)
