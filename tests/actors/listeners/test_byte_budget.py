"""Requests under way at a door hold no more bytes than it was told to spend on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.listeners.http1.wire import ByteBudget
from cluster.errors import Overloaded
from tests.actors.listeners.test_http import CLOSE, listening, say

KIB = 1024
BODY = b"x" * (400 * KIB)
LIMITS = {"max_body_bytes": 512 * KIB, "max_buffered_bytes": 700 * KIB}


def slow(path: bytes = b"/slow") -> bytes:
    return b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (path, len(BODY))


async def until(is_so: Callable[[], bool]) -> None:
    """A budget tells nobody; Raises: TimeoutError."""
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_what_does_not_fit_is_refused_and_takes_nothing() -> None:
    budget = ByteBudget(10)
    budget.take(7)

    with pytest.raises(Overloaded, match="max_buffered_bytes"):
        budget.take(4)
    budget.take(3)

    assert budget.held_bytes == 10


async def test_a_body_beyond_the_budget_is_refused_while_others_are_answered(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path, **LIMITS) as (listener, echo, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(slow() + BODY)
        await until(lambda: listener.budget.held_bytes >= len(BODY))

        refused = await say(port, slow(b"/a"), BODY)
        small = await say(
            port, b"POST /small HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n" + CLOSE + b"hi"
        )
        echo.go.set()
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()

        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in refused
        assert small.endswith(b"POST /small hi")
        assert head.startswith(b"HTTP/1.1 200 ")


async def test_what_was_answered_gives_its_bytes_back(tmp_path: Path) -> None:
    async with listening(tmp_path, **LIMITS) as (listener, _, port):
        for _ in range(4):
            answer = await say(port, slow(b"/a")[:-2] + CLOSE + BODY)
            assert answer.startswith(b"HTTP/1.1 200 ")
        chunk = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
        chunked = b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n" + CLOSE
        assert (await say(port, chunked + chunk)).startswith(b"HTTP/1.1 200 ")

        assert listener.budget.held_bytes == 0


async def test_a_caller_that_leaves_in_the_middle_gives_its_bytes_back(tmp_path: Path) -> None:
    async with listening(tmp_path, **LIMITS) as (listener, _, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(slow() + BODY[:1000])
        await until(lambda: listener.budget.held_bytes > 0)
        writer.transport.abort()
        await until(lambda: listener.budget.held_bytes == 0)


async def test_answers_that_nobody_reads_count(tmp_path: Path) -> None:
    async with listening(tmp_path, max_buffered_bytes=2**30) as (listener, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=KIB)
        large = b"y" * (32 * KIB * KIB)
        writer.write(
            b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n" % len(large) + CLOSE + large
        )
        await writer.drain()
        await until(lambda: 0 < listener.budget.held_bytes < len(large))
        answer = await asyncio.wait_for(reader.read(-1), 20)
        writer.close()

        assert len(answer) > len(large)
        assert listener.budget.held_bytes == 0
