"""The door's own HTTP/1.1 listener: a socket, a C parser, the routes. No framework.

Requests of one connection are answered in order (pipelined ones wait their turn); sizes and times
are bounded before anything is buffered without limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httptools

from actors.listeners.http_messages import (
    Answers,
    HttpReply,
    HttpRequest,
    HttpStream,
    error_reply,
    is_loopback,
)
from actors.listeners.port_claim import PortClaim
from actors.listeners.socket_sharing import SharedListener
from cluster.config.server import LimitsConfig
from cluster.errors import InvalidRequest, PayloadTooLarge, SquadronError

logger = logging.getLogger("squadron.http")

MAX_HEADER_BYTES = 64 * 1024
MAX_PIPELINED = 16
MAX_CHUNKS = 65_536
"""Of a body (protocol section 5.7): a chunk a byte costs more to read than the bytes do."""
LINGER_S = 1.0
"""How long a draining door waits on an idle connection for a request that is on its way."""

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class HttpListener:
    """Accepts on one claimed port until it is closed."""

    def __init__(self, routes: Answers, limits: LimitsConfig) -> None:
        self._routes = routes
        self._limits = limits
        self._connections: set[HttpConnection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._is_draining = False
        self._server: asyncio.Server | None = None
        self._shared: SharedListener | None = None

    async def start(self, claim: PortClaim, folder: Path) -> None:
        """Listen on the claimed port, on a sister's socket where there is one in `folder`."""
        loop = asyncio.get_running_loop()
        self._shared = await asyncio.to_thread(SharedListener, claim, folder)
        self._shared.offer()
        self._server = await loop.create_server(
            lambda: HttpConnection(self._routes, self._limits, self),
            sock=self._shared.socket.dup(),
            backlog=2048,
        )

    @property
    def is_listening(self) -> bool:
        return self._server is not None and self._server.is_serving()

    def joined(self, connection: HttpConnection) -> None:
        self._connections.add(connection)
        self._is_empty.clear()
        if self._is_draining:
            connection.close_when_idle()

    def left(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    async def drain(self, patience_s: float) -> None:
        """Stop accepting, let the requests in flight finish, then close what is left."""
        self._is_draining = True
        if self._server is not None and self._shared is not None:
            self._server.close()
            self._shared.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._is_empty.wait()
        for connection in list(self._connections):
            connection.abort()


class HttpConnection(asyncio.Protocol):
    """One client connection. Parser callbacks collect a request; a task answers it."""

    def __init__(self, routes: Answers, limits: LimitsConfig, listener: HttpListener) -> None:
        self._routes = routes
        self._limits = limits
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready: deque[tuple[HttpRequest, bool]] = deque()
        self._is_broken = False
        self._closes_when_idle = False
        self._is_local = False
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._num_chunks = 0
        self._is_reading = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports offer all of `asyncio.Transport` without inheriting from it.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._is_local = bool(peer) and is_loopback(peer[0])
        self._watch(self._limits.header_timeout_s)
        self._listener.joined(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.left(self)
        self._watch(None)
        self._can_write.set()
        if self._task is not None:
            # The caller is gone: what it asked for is not computed if that can be helped.
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(InvalidRequest("protocol upgrades are not supported"))
        except httptools.HttpParserCallbackError as error:
            known = error.__context__
            self._refuse(
                known if isinstance(known, SquadronError) else InvalidRequest("malformed request")
            )
        except httptools.HttpParserError as error:
            self._refuse(InvalidRequest(f"malformed HTTP request: {error}"))

    def eof_received(self) -> bool:
        # A caller that is gone and one that only closed its half look the same until we write. As
        # nginx and uvicorn do, both count as gone: their work is cancelled, nothing is computed
        # for nobody.
        return False

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    # Callbacks of the parser, in their order.

    def on_message_begin(self) -> None:
        self._reset()
        self._is_reading = True
        self._watch(self._limits.header_timeout_s)

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        size = self._headers.get("content-length", "")
        if size.isdigit() and int(size) > self._limits.max_body_bytes:
            raise self._too_large(int(size))
        if self._headers.get("expect", "").lower() == "100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_chunk_header(self) -> None:
        self._num_chunks += 1
        if self._num_chunks > MAX_CHUNKS:
            raise InvalidRequest(f"the body has more than {MAX_CHUNKS} chunks")

    def on_body(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._body_bytes > self._limits.max_body_bytes:
            raise self._too_large(self._body_bytes)
        self._body.append(part)
        self._watch(self._limits.header_timeout_s)

    def on_message_complete(self) -> None:
        self._is_reading = False
        self._watch(None)
        if len(self._ready) >= MAX_PIPELINED:
            raise InvalidRequest(f"more than {MAX_PIPELINED} requests were sent without waiting")
        path = self._url.partition(b"?")[0].decode("latin-1")
        request = HttpRequest(
            method=self._parser.get_method().decode("latin-1"),
            path=path,
            headers=self._headers,
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            is_local=self._is_local,
        )
        self._ready.append((request, self._parser.should_keep_alive()))
        if self._task is None:
            self._task = self._loop.create_task(self._answer_all())

    async def _answer_all(self) -> None:
        try:
            while self._ready:
                request, keeps_alive = self._ready.popleft()
                reply = await self._routes.answer(request)
                keeps_alive = keeps_alive and not self._closes_when_idle
                if isinstance(reply, HttpStream):
                    await self._send_stream(reply, keeps_alive=keeps_alive)
                else:
                    self._send(reply, keeps_alive=keeps_alive, has_body=request.method != "HEAD")
                await self._can_write.wait()
                if not keeps_alive:
                    self._close()
                    return
        finally:
            self._task = None
        if self._closes_when_idle:
            self._close()
        elif not self._is_reading:
            self._watch(self._limits.keep_alive_timeout_s)

    def close_when_idle(self) -> None:
        """Answer one more request at most. One that is on its way now must not meet a closed
        socket (the kernel would reset the connection), so an idle connection waits a while for it.
        """
        self._closes_when_idle = True
        if self._task is None and not self._is_reading:
            self._watch(LINGER_S)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _send(self, reply: HttpReply, *, keeps_alive: bool, has_body: bool = True) -> None:
        lines = [
            b"HTTP/1.1 %d %s" % (reply.status, _REASONS.get(reply.status, b"")),
            b"content-type: " + reply.content_type.encode(),
            b"content-length: %d" % reply.num_bytes,
        ]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in reply.headers]
        if not keeps_alive:
            lines.append(b"connection: close")
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        self._write(head, *(reply.chunks if has_body else ()))

    async def _send_stream(self, reply: HttpStream, *, keeps_alive: bool) -> None:
        """Parts as they come, no faster than the caller reads. Where the connection ends with the
        reply, its end is the body's (a caller of HTTP/1.0 knows no chunks)."""
        lines = [
            b"HTTP/1.1 %d %s" % (reply.status, _REASONS.get(reply.status, b"")),
            b"content-type: " + reply.content_type.encode(),
            b"transfer-encoding: chunked" if keeps_alive else b"connection: close",
        ]
        lines += [f"{name}: {value}".encode("latin-1") for name, value in reply.headers]
        self._write(b"\r\n".join(lines) + b"\r\n\r\n")
        try:
            async for part in reply.parts:
                size = b"%x\r\n" % len(part)
                self._write(*((size, part, b"\r\n") if keeps_alive else (part,)))
                await self._can_write.wait()
        except Exception:
            # The status has been sent: a cut connection is all that can still tell the caller.
            logger.exception("a streamed reply ended with a bug of ours")
            self.abort()
            return
        if keeps_alive:
            self._write(b"0\r\n\r\n")

    def _write(self, *parts: bytes | memoryview) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(parts)

    def _refuse(self, error: SquadronError) -> None:
        """Answer and hang up: after a parse error the stream has no meaning any more."""
        self._is_broken = True
        self._watch(None)
        if self._task is None:
            self._send(error_reply(error), keeps_alive=False)
            self._close()
        else:
            self._closes_when_idle = True

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _watch(self, patience_s: float | None) -> None:
        """One timer a connection: for the rest of a request, or for the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if patience_s is not None:
            self._timer = self._loop.call_later(patience_s, self._out_of_patience)

    def _out_of_patience(self) -> None:
        if self._is_reading:
            self._refuse(InvalidRequest("the request did not arrive in time"))
        else:
            self._close()

    def _count_header(self, num_bytes: int) -> None:
        self._header_bytes += num_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            raise PayloadTooLarge(f"headers are larger than {MAX_HEADER_BYTES} bytes")

    def _too_large(self, num_bytes: int) -> PayloadTooLarge:
        limit = self._limits.max_body_bytes
        return PayloadTooLarge(f"the body has {num_bytes} bytes, at most {limit} are allowed")
