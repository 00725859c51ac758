"""One connection of the door's own HTTP/1.1 listener: a C parser in front of the routes.

Requests of one connection are answered in order (pipelined ones wait their turn); sizes and times
are bounded before anything is buffered without limit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import NamedTuple, Protocol, cast

import httptools

from actors.listeners.http_bytes import HEADER_NAMES, lower_name, reply_head, stream_head
from actors.listeners.http_messages import (
    Answers,
    HttpReply,
    HttpRequest,
    HttpStream,
    error_reply,
    is_loopback,
)
from cluster.config.server import LimitsConfig
from cluster.errors import InvalidRequest, PayloadTooLarge, SquadronError

logger = logging.getLogger("squadron.http")

MAX_HEADER_BYTES = 64 * 1024
MAX_PIPELINED = 16
MAX_CHUNKS = 65_536
"""Of a body (protocol section 5.7): a chunk a byte costs more to read than the bytes do."""
MAX_FRAMING_BYTES = 512 * 1024
"""What the parser may hold or skip of one request: lines without end never reach a callback. A
read brings at most 256 KiB, some of which may belong to the request before."""
FRAMING_BYTES_PER_CHUNK = 16
MIN_BODY_BYTES_PER_S = 1024
"""A body that comes slower holds a connection and its memory for nothing."""
LINGER_S = 1.0
"""How long a draining door waits on an idle connection for a request that is on its way."""

_TOO_MANY = InvalidRequest(f"more than {MAX_PIPELINED} requests were sent without waiting")

_JOINED_BYTES = 64 * 1024
"""Up to here one copy is cheaper than a list of buffers for the kernel."""


class ConnectionOwner(Protocol):
    """Who wants to know which connections there are."""

    def joined(self, connection: HttpConnection) -> None: ...

    def left(self, connection: HttpConnection) -> None: ...


class _Repeated(NamedTuple):
    """The head of a request that is likely to come again, and what it said."""

    head: bytes
    num_bytes: int
    method: str
    path: str
    headers: Mapping[str, str]

    def fits(self, data: bytes) -> bool:
        """Whether `data` is one whole request with this head: equal heads announce equal bodies."""
        return len(data) == self.num_bytes and data.startswith(self.head)


class HttpConnection(asyncio.Protocol):
    """One client connection. Parser callbacks collect a request; the routes answer it, in the usual
    case by calling back, else in a task. A connection has one request under way at a time.
    """

    def __init__(self, routes: Answers, limits: LimitsConfig, listener: ConnectionOwner) -> None:
        self._routes = routes
        self._limits = limits
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._patience_ends_s = inf
        self._task: asyncio.Task[None] | None = None
        self._cancel: Callable[[], None] | None = None
        self._is_busy = False
        self._keeps_alive = True
        self._data = b""
        self._repeated: _Repeated | None = None
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
        self._num_read = 0
        self._body_began_s = 0.0
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
        if self._timer is not None:
            self._timer.cancel()
        self._can_write.set()
        # The caller is gone: what it asked for is not computed if that can be helped.
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            return
        repeated = self._repeated
        if repeated is not None and repeated.fits(data) and not self._is_reading:
            # What was parsed once need not be parsed again.
            self._received(
                HttpRequest(
                    method=repeated.method,
                    path=repeated.path,
                    headers=repeated.headers,
                    body=data[len(repeated.head) :],
                    is_local=self._is_local,
                ),
                keeps_alive=True,
            )
            return
        self._data = data
        try:
            self._parser.feed_data(data)
            if self._is_reading:
                self._count_framing(len(data))
        except PayloadTooLarge as error:
            self._refuse(error)
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
        if not self._is_busy:
            self._next()

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
        self._headers[HEADER_NAMES.get(name) or lower_name(name)] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._body_began_s = self._loop.time()
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
        patience_s = self._limits.header_timeout_s
        earned_s = self._body_bytes / MIN_BODY_BYTES_PER_S
        spent_s = self._loop.time() - self._body_began_s
        self._watch(min(patience_s, max(0.0, patience_s + earned_s - spent_s)))

    def on_message_complete(self) -> None:
        self._is_reading = False
        path = self._url.partition(b"?")[0].decode("latin-1")
        method = self._parser.get_method()
        request = HttpRequest(
            method="POST" if method == b"POST" else method.decode("latin-1"),
            path=path,
            headers=self._headers,
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            is_local=self._is_local,
        )
        keeps_alive = self._parser.should_keep_alive()
        self._remember(request, keeps_alive=keeps_alive)
        self._received(request, keeps_alive=keeps_alive)

    def _remember(self, request: HttpRequest, *, keeps_alive: bool) -> None:
        """A request that came in one piece: clients send the same head again and again."""
        data = self._data
        head_bytes = len(data) - len(request.body)
        is_whole = data.startswith((b"POST ", b"GET ")) and data.endswith(request.body)
        is_plain = self._num_chunks == 0 and "content-length" in request.headers
        if keeps_alive and is_whole and is_plain and data[:head_bytes].endswith(b"\r\n\r\n"):
            if data.find(b"\r\n\r\n") == head_bytes - 4:
                self._repeated = _Repeated(
                    data[:head_bytes], len(data), request.method, request.path, request.headers
                )
        else:
            self._repeated = None

    def _received(self, request: HttpRequest, *, keeps_alive: bool) -> None:
        self._watch(None)
        if len(self._ready) >= MAX_PIPELINED:
            self._refuse(_TOO_MANY)
            return
        self._ready.append((request, keeps_alive))
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        """Begin the next request, if one waits and what was answered has gone out."""
        if not self._ready or not self._can_write.is_set():
            return
        request, self._keeps_alive = self._ready.popleft()
        self._is_busy = True
        self._cancel = self._routes.begin(request, self._answered)
        if self._cancel is None:
            self._task = self._loop.create_task(self._answer(request))

    def _answered(self, reply: HttpReply) -> None:
        self._cancel = None
        self._send(reply, keeps_alive=self._keeps_alive and not self._closes_when_idle)
        self._finished()

    async def _answer(self, request: HttpRequest) -> None:
        try:
            reply = await self._routes.answer(request)
            keeps_alive = self._keeps_alive and not self._closes_when_idle
            if isinstance(reply, HttpStream):
                await self._send_stream(reply, keeps_alive=keeps_alive)
            else:
                self._send(reply, keeps_alive=keeps_alive, has_body=request.method != "HEAD")
        finally:
            self._task = None
        self._finished()

    def _finished(self) -> None:
        """A request was answered: on to the next one, or to waiting for it."""
        self._is_busy = False
        if not self._keeps_alive or self._closes_when_idle:
            self._close()
        elif self._ready:
            self._next()
        elif not self._is_reading:
            self._watch(self._limits.keep_alive_timeout_s)

    def close_when_idle(self) -> None:
        """Answer one more request at most. One that is on its way now must not meet a closed
        socket (the kernel would reset the connection), so an idle connection waits a while for it.
        """
        self._closes_when_idle = True
        if not self._is_busy and not self._is_reading:
            self._watch(LINGER_S)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _send(self, reply: HttpReply, *, keeps_alive: bool, has_body: bool = True) -> None:
        head = reply_head(reply, keeps_alive=keeps_alive)
        self._write(head, *(reply.chunks if has_body else ()))

    async def _send_stream(self, reply: HttpStream, *, keeps_alive: bool) -> None:
        """Parts as they come, no faster than the caller reads. Where the connection ends with the
        reply, its end is the body's (a caller of HTTP/1.0 knows no chunks)."""
        self._write(stream_head(reply, keeps_alive=keeps_alive))
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
            if len(parts) > 1 and sum(map(len, parts)) > _JOINED_BYTES:
                self._transport.writelines(parts)
            else:
                self._transport.write(b"".join(parts))

    def _refuse(self, error: SquadronError) -> None:
        """Answer and hang up: after a parse error the stream has no meaning any more."""
        self._is_broken = True
        self._watch(None)
        if self._is_busy:
            self._closes_when_idle = True
        else:
            self._send(error_reply(error), keeps_alive=False)
            self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _watch(self, patience_s: float | None) -> None:
        """How long to wait for the rest of a request, or for the next one; None: for ever.

        One timer a connection, which looks when it fires whether it is time yet: setting it anew
        for each request would cost more than reading the request does.
        """
        if patience_s is None:
            self._patience_ends_s = inf
            return
        self._patience_ends_s = ends_s = self._loop.time() + patience_s
        if self._timer is None or ends_s < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(ends_s, self._look_at_patience)

    def _look_at_patience(self) -> None:
        self._timer = None
        ends_s = self._patience_ends_s
        if ends_s == inf:
            return
        # uvloop's clock has a resolution of a millisecond.
        if ends_s > self._loop.time() + 0.001:
            self._timer = self._loop.call_at(ends_s, self._look_at_patience)
        elif self._is_reading:
            self._refuse(InvalidRequest("the request did not arrive in time"))
        else:
            self._close()

    def _count_framing(self, num_bytes: int) -> None:
        """Of a request that is not whole yet. Raises: PayloadTooLarge."""
        self._num_read += num_bytes
        allowed = MAX_FRAMING_BYTES + FRAMING_BYTES_PER_CHUNK * self._num_chunks
        if self._num_read - self._body_bytes - self._header_bytes > allowed:
            raise PayloadTooLarge(f"the request has a line of more than {MAX_HEADER_BYTES} bytes")

    def _count_header(self, num_bytes: int) -> None:
        self._header_bytes += num_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            raise PayloadTooLarge(f"headers are larger than {MAX_HEADER_BYTES} bytes")

    def _too_large(self, num_bytes: int) -> PayloadTooLarge:
        limit = self._limits.max_body_bytes
        return PayloadTooLarge(f"the body has {num_bytes} bytes, at most {limit} are allowed")
