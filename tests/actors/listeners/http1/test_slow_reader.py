"""Callers that do not read what they asked for, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream
from tests.actors.listeners.test_byte_budget import until
from tests.actors.listeners.test_http import Echo, listening

LARGE_BYTES = 16 * 2**20


class Generous(Echo):
    """`/large` is an answer larger than the sockets' buffers, `/endless` a stream without end."""

    def __init__(self) -> None:
        super().__init__()
        self.num_ended = 0

    async def answer(self, request: HttpRequest) -> HttpReply | HttpStream:
        if request.path == "/endless":
            return HttpStream(parts=self._parts(), content_type="text/plain")
        return HttpReply(status=200, chunks=(b"x" * LARGE_BYTES,))

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"y" * 100_000
        finally:
            self.num_ended += 1


@asynccontextmanager
async def caller(port: int, path: bytes, *headers: bytes) -> AsyncIterator[socket.socket]:
    """Who has asked for `path`, and reads nothing by itself."""
    with socket.socket() as connected:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        connected.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connected, ("127.0.0.1", port))
        lines = (b"GET %s HTTP/1.1" % path, b"host: h", *headers)
        await loop.sock_sendall(connected, b"\r\n".join(lines) + b"\r\n\r\n")
        yield connected


@pytest.mark.parametrize("headers", [(), (b"connection: close",)], ids=["kept", "closing"])
async def test_an_answer_that_nobody_reads_is_given_up(
    tmp_path: Path, headers: tuple[bytes, ...]
) -> None:
    limits = {"send_timeout_s": 0.2, "keep_alive_timeout_s": 0.1}
    async with (
        listening(tmp_path, Generous(), **limits) as (listener, _, port),
        caller(port, b"/large", *headers),
    ):
        await until(lambda: listener.budget.held_bytes > 0)
        await until(lambda: listener.budget.held_bytes == 0)


async def test_a_stream_that_nobody_reads_is_given_up(tmp_path: Path) -> None:
    generous = Generous()
    async with (
        listening(tmp_path, generous, send_timeout_s=0.2) as (_, _, port),
        caller(port, b"/endless"),
    ):
        await until(lambda: generous.num_ended == 1)


async def test_who_reads_slowly_but_reads_gets_the_whole_answer(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    limits = {"send_timeout_s": 0.3, "keep_alive_timeout_s": 0.1}
    num_read = 0
    async with (
        listening(tmp_path, Generous(), **limits) as (_, _, port),
        caller(port, b"/large") as reader,
    ):
        while part := await loop.sock_recv(reader, 64 * 1024):
            num_read += len(part)
            await asyncio.sleep(0.002)

    assert num_read > LARGE_BYTES
