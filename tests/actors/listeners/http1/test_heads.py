"""What a request's head says, and what may not change it, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream
from tests.actors.listeners.test_http import CLOSE, Echo, listening, post, say


class Streaming(Echo):
    """Answers with two parts."""

    async def answer(self, request: HttpRequest) -> HttpReply | HttpStream:
        return HttpStream(parts=self._parts(), content_type="text/plain")

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        yield b"one,"
        yield b"two"


async def test_trailers_are_no_headers(tmp_path: Path) -> None:
    head = (
        b"POST /soon HTTP/1.1\r\nhost: a\r\nx-squadron-tenant: a\r\ntransfer-encoding: chunked\r\n"
        + CLOSE
    )
    body = b"2\r\nhi\r\n0\r\nx-squadron-tenant: b\r\nhost: evil\r\n\r\n"
    async with listening(tmp_path) as (_, _, port):
        answer = await say(port, head + body)
        added = await say(port, head.replace(b"x-squadron-tenant: a\r\n", b"") + body)

    assert answer.endswith(b"\r\na hi")
    assert added.endswith(b"\r\n- hi")


async def test_a_header_that_is_repeated_is_a_list(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, _, port):
        tenants = (b"x-squadron-tenant: a", b"X-Squadron-Tenant: b")
        answer = await say(port, post("/soon", b"hi", *tenants, b"connection: close"))

    assert answer.endswith(b"\r\na, b hi")


async def test_a_second_host_is_refused(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, _, port):
        answer = await say(port, post("/soon", b"hi", b"Host: other"))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"more than one Host" in answer


async def test_http_1_0_gets_a_stream_that_ends_with_its_connection(tmp_path: Path) -> None:
    asked = b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
    async with listening(tmp_path, Streaming(), keep_alive_timeout_s=0.1) as (_, _, port):
        old = await say(port, asked)
        new = await say(port, b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")

    assert b"chunked" not in old
    assert old.endswith(b"\r\n\r\none,two")
    assert b"transfer-encoding: chunked" in new


async def test_http_1_0_is_told_that_its_connection_ends(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, _, port):
        answer = await say(port, b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")

    assert b"connection: close" in answer
    assert answer.endswith(b"GET /a ")


async def test_http_1_0_knows_no_invitation(tmp_path: Path) -> None:
    head = b"POST /a HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    async with listening(tmp_path) as (_, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        await asyncio.sleep(0.05)
        writer.write(b"ok")
        answer = await asyncio.wait_for(reader.read(-1), 5)
        writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"POST /a ok")
