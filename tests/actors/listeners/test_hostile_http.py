"""What the HTTP listener does with callers that mean ill: bounded bytes, bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from tests.actors.listeners.test_http import CLOSE, listening, say

PART = b"a" * 65536
NUM_PARTS = 256


async def pour(port: int, head: bytes) -> tuple[int, bytes]:
    """Send `head` and then the same without end: what was sent before the hang-up, the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = asyncio.create_task(reader.read(-1))
    writer.write(head)
    num_sent = 0
    with contextlib.suppress(ConnectionError):
        while num_sent < NUM_PARTS:
            writer.write(PART)
            await writer.drain()
            num_sent += 1
            if answered.done():
                # It is heard out for a while, so that the answer is not lost with the connection.
                await asyncio.sleep(0.02)
    writer.close()
    return num_sent, await asyncio.wait_for(answered, 5)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: ",
        b"GET / HTTP/1.1\r\nhost: a\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;",
    ],
    ids=["url", "header value", "header name", "trailer", "chunk extension"],
)
async def test_a_line_without_end_is_cut_off(tmp_path: Path, head: bytes) -> None:
    async with listening(tmp_path) as (_, _, port):
        num_sent, answer = await pour(port, head)
        after = await say(port, b"GET /ok HTTP/1.1\r\nhost: a\r\n" + CLOSE)

    assert num_sent < NUM_PARTS
    assert answer[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 400")
    assert after.endswith(b"GET /ok ")


async def test_a_body_in_many_pieces_is_no_line_without_end(tmp_path: Path) -> None:
    body = b"b" * 3_000_000
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n" % len(body) + CLOSE
    async with listening(tmp_path) as (_, _, port):
        plain = await say(port, head, body)
        small = b"".join(b"2\r\nbb\r\n" for _ in range(60_000))
        chunked = await say(
            port,
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n" + CLOSE,
            small,
            b"0\r\n\r\n",
        )

    assert plain.endswith(body)
    assert chunked.endswith(b"b" * 120_000)


async def test_who_sends_on_in_chunks_is_heard_out_and_gets_to_read_why_not(
    tmp_path: Path,
) -> None:
    chunk = b"%x\r\n" % len(PART) + PART + b"\r\n"
    loop = asyncio.get_running_loop()
    async with listening(tmp_path, max_body_bytes=100_000) as (_, _, port):
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.setblocking(False)
            head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
            await loop.sock_sendall(caller, head + chunk + chunk)
            begun = await asyncio.wait_for(loop.sock_recv(caller, 1), 5)
            for _ in range(4):
                await loop.sock_sendall(caller, chunk)
                await asyncio.sleep(0.02)
            answer = begun + await asyncio.wait_for(loop.sock_recv(caller, 4096), 5)

    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_body_that_drips_is_given_up_though_every_drop_is_in_time(tmp_path: Path) -> None:
    async with listening(tmp_path, header_timeout_s=0.2) as (_, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")
        ended = asyncio.create_task(reader.read(-1))
        num_drops = 0
        while not ended.done() and num_drops < 500:
            writer.write(b"x")
            num_drops += 1
            await asyncio.wait([ended], timeout=0.02)
        writer.close()
        # A drop that met the closed socket resets the connection, and the answer with it.
        (answer,) = await asyncio.gather(ended, return_exceptions=True)

    assert num_drops < 500
    assert isinstance(answer, ConnectionError) or b"did not arrive in time" in answer


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nhost: a\r\nx\0y: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
    ],
)
async def test_lies_about_the_body_and_broken_lines_are_refused(
    tmp_path: Path, head: bytes
) -> None:
    async with listening(tmp_path) as (_, _, port):
        answer = await say(port, head)
        after = await say(port, b"GET /ok HTTP/1.1\r\nhost: a\r\n" + CLOSE)

    assert answer.split(b" ")[1] in (b"400", b"413")
    assert b'{"error":"' in answer
    assert after.endswith(b"GET /ok ")


async def test_a_caller_that_closes_its_half_inside_a_request_is_refused_and_let_go(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path) as (_, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab")
        writer.write_eof()
        left = await asyncio.wait_for(reader.read(-1), 5)
        writer.close()

    assert left.startswith(b"HTTP/1.1 400")


async def test_a_body_that_is_cut_off_is_told_what_is_missing(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n" + b"a" * 400)
        writer.write_eof()
        answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 400")
    assert b"expected 1000 bytes of body, got 400" in answer
