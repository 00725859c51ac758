"""The listener over real sockets, with routes that answer at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.listeners.http import HttpListener
from actors.listeners.http1.reader import MAX_HEADER_BYTES
from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream
from actors.listeners.port_claim import claim_port
from cluster.config.server import LimitsConfig


class Echo:
    """Answers `METHOD path body`; `/slow` answers when `go` is set. Paths that begin with `/soon`
    are answered by calling back, `/soon/never` not at all."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.num_cancelled = 0
        self.num_begun = 0
        self.has_begun = asyncio.Event()
        self.is_asked_slowly = asyncio.Event()

    def begin(
        self, request: HttpRequest, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        if not request.path.startswith("/soon"):
            return None
        self.num_begun += 1
        self.has_begun.set()
        if request.path != "/soon/never":
            tenant = request.headers.get("x-squadron-tenant", "-").encode()
            reply = HttpReply(status=200, chunks=(tenant, b" ", request.body))
            asyncio.get_running_loop().call_soon(done, reply)
        return self._cancel

    def _cancel(self) -> None:
        self.num_cancelled += 1

    async def answer(self, request: HttpRequest) -> HttpReply | HttpStream:
        if request.path == "/slow":
            self.is_asked_slowly.set()
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.num_cancelled += 1
                raise
        text = f"{request.method} {request.path} ".encode() + request.body
        return HttpReply(status=200, chunks=(text[:4], text[4:]), content_type="text/plain")


@asynccontextmanager
async def listening(
    folder: Path, echo: Echo | None = None, **limits: float
) -> AsyncIterator[tuple[HttpListener, Echo, int]]:
    echo = echo or Echo()
    with claim_port("127.0.0.1", 0, key="k", folder=folder) as claim:
        listener = HttpListener(echo, LimitsConfig.model_validate(limits))
        await listener.start(claim, folder)
        try:
            yield listener, echo, claim.port
        finally:
            echo.go.set()
            await listener.drain(1.0)


async def say(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Everything the server answers until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause_s)
    answer = await asyncio.wait_for(reader.read(-1), 5)
    writer.close()
    await writer.wait_closed()
    return answer


CLOSE = b"connection: close\r\n\r\n"


async def test_a_request_is_answered(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, _, port):
        answer = await say(port, b"GET /a?x=1 HTTP/1.1\r\nhost: h\r\n" + CLOSE)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"HTTP/1.1 200 OK"
    assert body == b"GET /a "


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"http://h:1/a/b?x=//y", b"/a/b"), (b"http://h", b"/"), (b"/http://h/a", b"/http://h/a")],
)
async def test_a_proxys_target_is_the_path_in_it(
    tmp_path: Path, target: bytes, path: bytes
) -> None:
    async with listening(tmp_path) as (_, _, port):
        answer = await say(port, b"GET %s HTTP/1.1\r\nhost: h\r\n" % target + CLOSE)

    assert answer.endswith(b"\r\n\r\nGET %s " % path)


async def test_a_body_may_come_in_pieces_and_in_chunks(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, _, port):
        pieces = await say(
            port,
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n" + CLOSE,
            b"abc",
            b"def",
            pause_s=0.01,
        )
        chunks = await say(
            port,
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n" + CLOSE,
            b"3\r\nabc\r\n",
            b"3\r\ndef\r\n0\r\n\r\n",
        )

    assert pieces.endswith(b"POST / abcdef")
    assert chunks.endswith(b"POST / abcdef")


async def test_a_connection_is_kept_and_pipelined_requests_keep_their_order(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path) as (_, _, port):
        answer = await say(
            port,
            b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /3 HTTP/1.1\r\nhost: a\r\n" + CLOSE,
            pause_s=0.01,
        )

    assert [part[:6] for part in answer.split(b"\r\n\r\n")[1:]] == [b"GET /1", b"GET /2", b"GET /3"]


async def test_expect_100_continue_is_answered_before_the_body(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, _, port):
        answer = await say(
            port,
            b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n" + CLOSE,
            b"ok",
            pause_s=0.05,
        )

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x00\x01\x02 nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: abc\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 101\r\n\r\n", b"413"),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n65\r\n"
            + b"x" * 101
            + b"\r\n",
            b"413",
        ),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * (MAX_HEADER_BYTES + 1) + b"\r\n\r\n", b"413"),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n"
            b"transfer-encoding: chunked\r\n\r\n",
            b"400",
        ),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n"
            b"1\r\nx\r\n0\r\n\r\n",
            b"501",
        ),
    ],
)
async def test_what_is_malformed_or_too_large_is_refused_and_hung_up(
    tmp_path: Path, request_bytes: bytes, status: bytes
) -> None:
    async with listening(tmp_path, max_body_bytes=100) as (_, _, port):
        answer = await say(port, request_bytes)
        after = await say(port, b"GET /ok HTTP/1.1\r\nhost: a\r\n" + CLOSE)

    assert answer.split(b" ")[1] == status
    assert b'{"error":"' in answer
    assert after.endswith(b"GET /ok ")


async def test_a_request_that_never_ends_is_given_up(tmp_path: Path) -> None:
    async with listening(tmp_path, header_timeout_s=0.1) as (_, _, port):
        answer = await say(port, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab")

    assert b"did not arrive in time" in answer


async def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    async with listening(tmp_path, keep_alive_timeout_s=0.1) as (_, _, port):
        answer = await say(port, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")

    assert answer.endswith(b"GET / ")


async def test_a_caller_that_vanishes_cancels_its_work(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, echo, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.05)

        assert echo.num_cancelled == 1


async def test_draining_finishes_what_is_in_flight_and_accepts_nothing_new(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path) as (listener, echo, port):
        inside = asyncio.create_task(say(port, b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n"))
        await asyncio.sleep(0.05)

        draining = asyncio.create_task(listener.drain(5.0))
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        echo.go.set()

        answer = await inside
        await draining
        assert answer.endswith(b"GET /slow ")
        assert b"connection: close" in answer


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1".encode(), b"host: h", *headers]
    lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def bodies(port: int, *requests: bytes) -> list[bytes]:
    """The answers to requests of one connection, each sent after the one before was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    for request in requests:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append(await reader.readexactly(length))
    writer.close()
    await writer.wait_closed()
    return found


async def test_requests_with_the_same_head_again_and_again_are_answered_each(
    tmp_path: Path,
) -> None:
    tenant = b"X-Squadron-Tenant: a"
    async with listening(tmp_path) as (_, echo, port):
        found = await bodies(
            port,
            post("/soon", b"one", tenant),
            post("/soon", b"two", tenant),
            post("/soon", b"three", tenant),
            post("/soon", b"six", b"X-Squadron-Tenant: b"),
            post("/soon", b"ten"),
            post("/plain", b"one"),
            post("/soon", b"two", tenant),
        )

    assert found == [
        b"a one",
        b"a two",
        b"a three",
        b"b six",
        b"- ten",
        b"POST /plain one",
        b"a two",
    ]
    assert echo.num_begun == 6


async def test_a_body_that_looks_like_a_request_is_a_body(tmp_path: Path) -> None:
    nested = post("/soon", b"x")
    async with listening(tmp_path) as (_, _, port):
        found = await bodies(port, *[post("/soon", nested)] * 3, post("/soon", b"x"))

    assert found == [b"- " + nested] * 3 + [b"- x"]


async def test_requests_with_the_same_head_may_be_sent_without_waiting(tmp_path: Path) -> None:
    one = post("/soon", b"one")
    last = post("/soon", b"two", b"connection: close")
    async with listening(tmp_path) as (_, echo, port):
        answer = await say(port, one, one, one + one, one[:40], one[40:], one + last, pause_s=0.01)

    assert answer.count(b"- one") == 6
    assert answer.endswith(b"- two")
    assert echo.num_begun == 7


async def test_a_caller_that_goes_cancels_what_was_begun(tmp_path: Path) -> None:
    async with listening(tmp_path) as (listener, echo, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post("/soon/never", b""))
        await asyncio.wait_for(echo.has_begun.wait(), 5)
        writer.close()
        await listener.drain(5.0)

    assert echo.num_cancelled == 1
