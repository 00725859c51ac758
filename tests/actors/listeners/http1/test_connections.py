"""How many connections there may be, and what those that finish no request may hold."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.actors.listeners.test_byte_budget import until
from tests.actors.listeners.test_http import CLOSE, listening, say


async def test_a_connection_too_many_is_told_so_and_the_others_go_on(tmp_path: Path) -> None:
    async with listening(tmp_path, max_connections=2) as (_, _, port):
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = streams[0]
        writer.write(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"GET /a "), 5)

        refused = await say(port, b"GET /b HTTP/1.1\r\nhost: a\r\n" + CLOSE)
        writer.write(b"GET /c HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"GET /c "), 5)
        writer.write(b"GET /d HTTP/1.1\r\nhost: a\r\n" + CLOSE)
        await asyncio.wait_for(reader.read(-1), 5)
        after = await say(port, b"GET /e HTTP/1.1\r\nhost: a\r\n" + CLOSE)
        for _, writer in streams:
            writer.close()

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in refused
    assert b"limits.max_connections" in refused
    assert after.endswith(b"GET /e ")


@pytest.mark.parametrize(
    "begun",
    [
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n" + b"x" * 4000,
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1000\r\n" + b"x" * 4000,
        b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 4000,
    ],
    ids=["length", "chunks", "header"],
)
async def test_a_request_that_is_not_whole_counts_however_small(
    tmp_path: Path, begun: bytes
) -> None:
    async with listening(tmp_path) as (listener, _, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        await until(lambda: listener.budget.held_bytes >= 4000)
        writer.transport.abort()
        await until(lambda: listener.budget.held_bytes == 0)


async def test_what_was_not_whole_and_does_not_fit_is_refused(tmp_path: Path) -> None:
    limits = {"max_body_bytes": 5000, "max_buffered_bytes": 6000}
    begun = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n" + b"x" * 4000
    async with listening(tmp_path, **limits) as (listener, _, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        await until(lambda: listener.budget.held_bytes >= 4000)
        refused = await say(port, begun)
        writer.write(b"x" * 1000)
        writer.close()

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"limits.max_buffered_bytes" in refused
