"""Requests that are sent on one connection without waiting, over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.actors.listeners.test_byte_budget import until
from tests.actors.listeners.test_http import CLOSE, listening, post, say

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECTING = b"expect: 100-continue\r\n"


async def test_a_caller_always_half_a_request_ahead_holds_no_more_than_that(
    tmp_path: Path,
) -> None:
    request = post("/a", b"z" * 100_000)
    first, last = request[:50_000], request[50_000:]
    async with listening(tmp_path) as (listener, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        held: set[int] = set()
        writer.write(first)
        for _ in range(8):
            writer.write(last + first)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            await asyncio.wait_for(reader.readexactly(len(b"POST /a ") + 100_000), 5)
            await until(lambda: listener.budget.held_bytes < 200_000)
            held.add(listener.budget.held_bytes)
        writer.transport.abort()
        await until(lambda: listener.budget.held_bytes == 0)

    assert max(held) <= 100_000


async def test_bodies_that_wait_their_turn_count_however_small(tmp_path: Path) -> None:
    async with listening(tmp_path) as (listener, echo, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n" + post("/a", b"z" * 10_000) * 3)
        await until(lambda: listener.budget.held_bytes == 30_000)
        echo.go.set()
        for length in (len(b"GET /slow "), *[len(b"POST /a ") + 10_000] * 3):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            await reader.readexactly(length)
        await until(lambda: listener.budget.held_bytes == 0)
        writer.close()


async def test_what_waits_beyond_the_budget_ends_the_connection_after_the_answer(
    tmp_path: Path,
) -> None:
    limits = {"max_body_bytes": 25_000, "max_buffered_bytes": 25_000}
    async with listening(tmp_path, **limits) as (listener, echo, port):
        asked = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n" + post("/a", b"z" * 10_000) * 3
        answering = asyncio.create_task(say(port, asked))
        await until(lambda: listener.budget.held_bytes > 0)
        echo.go.set()
        answer = await answering

        assert answer.endswith(b"connection: close\r\n\r\nGET /slow ")
        await until(lambda: listener.budget.held_bytes == 0)


async def test_a_caller_is_invited_to_send_its_body_when_its_turn_has_come(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path, header_timeout_s=0.3) as (_, echo, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        writer.write(
            b"POST /b HTTP/1.1\r\nhost: a\r\n" + EXPECTING + b"content-length: 2\r\n" + CLOSE
        )
        # Longer than a caller may take for the rest of a request that it could send.
        with_nothing = await asyncio.wait([asyncio.create_task(reader.read(1))], timeout=0.6)
        echo.go.set()
        (begun,) = with_nothing[1]
        before = await begun + await asyncio.wait_for(reader.readuntil(CONTINUE), 5)
        writer.write(b"ok")
        after = await asyncio.wait_for(reader.read(-1), 5)
        writer.close()

    assert before.startswith(b"HTTP/1.1 200 OK")
    assert before.endswith(b"GET /slow " + CONTINUE)
    assert after.startswith(b"HTTP/1.1 200 OK")
    assert after.endswith(b"POST /b ok")


async def test_a_body_that_comes_uninvited_needs_no_invitation(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, echo, port):
        expecting = post("/b", b"ok", EXPECTING[:-2], b"connection: close")
        saying = asyncio.create_task(
            say(port, b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n" + expecting)
        )
        await echo.is_asked_slowly.wait()
        echo.go.set()
        answer = await saying

    assert CONTINUE not in answer
    assert answer.endswith(b"POST /b ok")
