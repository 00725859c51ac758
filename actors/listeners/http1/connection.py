"""One connection of the door's own HTTP/1.1 listener: a C parser in front of the routes.

Requests of one connection are answered in order (pipelined ones wait their turn); sizes and times
are bounded before anything is buffered without limit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from math import inf
from typing import Protocol, cast

from actors.listeners.http1.reader import HttpReader
from actors.listeners.http1.slow_reader import SlowReader
from actors.listeners.http1.turns import Turns
from actors.listeners.http1.wire import (
    ByteBudget,
    reply_head,
    stream_head,
)
from actors.listeners.http_messages import (
    Answers,
    HttpReply,
    HttpRequest,
    HttpStream,
    error_reply,
    is_loopback,
)
from cluster.config.server import LimitsConfig
from cluster.errors import InvalidRequest, SquadronError

logger = logging.getLogger("squadron.http")

MAX_PIPELINED = 16
LINGER_S = 1.0
"""How long a draining door waits on an idle connection for a request that is on its way."""

_REFUSALS = (503, 504)

LINGER_BYTES = 16 * 2**20
"""How much a refused caller may still send."""

_TOO_MANY = InvalidRequest(f"more than {MAX_PIPELINED} requests were sent without waiting")

_JOINED_BYTES = 64 * 1024
"""Up to here one copy is cheaper than a list of buffers for the kernel."""


class ConnectionOwner(Protocol):
    """Who wants to know which connections there are, and says what they may hold together."""

    budget: ByteBudget
    turns: Turns

    def joined(self, connection: HttpConnection) -> None:
        """Raises: Overloaded, when there are as many as there may be."""

    def left(self, connection: HttpConnection) -> None: ...


class HttpConnection(HttpReader, asyncio.Protocol):
    """One client connection. Parser callbacks collect a request; the routes answer it, in the usual
    case by calling back, else in a task. A connection has one request under way at a time.
    """

    def __init__(self, routes: Answers, limits: LimitsConfig, listener: ConnectionOwner) -> None:
        super().__init__(limits)
        self._routes = routes
        self._listener = listener
        self._budget = listener.budget
        self._turns = listener.turns
        self._held_bytes = 0
        self._answered_bytes = 0
        self._unsent_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._patience_ends_s = inf
        self._task: asyncio.Task[None] | None = None
        self._cancel: Callable[[], None] | None = None
        self._is_busy = False
        self._keeps_alive = True
        self._ready: deque[tuple[HttpRequest, bool, int]] = deque()
        self._owes_invitation = False
        self._num_ignored = 0
        self._is_broken = False
        self._closes_when_idle = False
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._reader = SlowReader(limits.send_timeout_s)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports offer all of `asyncio.Transport` without inheriting from it.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.is_local = bool(peer) and is_loopback(peer[0])
        self.watch(self.limits.header_timeout_s)
        try:
            self._listener.joined(self)
        except SquadronError as error:
            self._refuse(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.left(self)
        self.watch(None)
        if self._timer is not None:
            self._timer.cancel()
        self._reader.forget()
        self._can_write.set()
        # The parser and this object hold each other until the collector comes by: not the bodies.
        self.forget()
        self._ready.clear()
        self._release()
        self._sent()
        # The caller is gone: what it asked for is not computed if that can be helped.
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_broken:
            self._ignore(len(data))
            return
        self._turns.read(self)
        try:
            self.feed(data)
        except SquadronError as error:
            self._refuse(error)

    def _ignore(self, num_bytes: int) -> None:
        """Who never says how much will come is heard out no further than this."""
        self._num_ignored += num_bytes
        if self._num_ignored > LINGER_BYTES and not self.has_length and self._transport:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        # A caller that is gone and one that only closed its half look the same until we write. As
        # nginx and uvicorn do, both count as gone: their work is cancelled, nothing is computed
        # for nobody. A request that can never be whole costs nothing to refuse.
        if self.is_reading and not self._is_broken and not self._is_busy:
            self._is_broken = True
            self._send(error_reply(self.cut_off()), keeps_alive=False)
        return False

    def pause(self) -> None:
        """Read no more for now."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._can_write.clear()
        assert self._transport is not None
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self._budget.hold(self._unsent_bytes)
        self._reader.watch(self._transport, is_paused=True)

    def resume_writing(self) -> None:
        self._can_write.set()
        self._reader.has_read()
        self._sent()
        if not self._is_busy:
            self._next()

    def received(self, request: HttpRequest, *, keeps_alive: bool, reserved_bytes: int = 0) -> None:
        self.watch(None)
        self._owes_invitation = False
        if self._is_busy or self._ready:
            if len(self._ready) >= MAX_PIPELINED:
                self._refuse(_TOO_MANY)
                return
            # It waits its turn, so that `max_in_flight` does not count it.
            if len(request.body) > reserved_bytes:
                self.reserve(len(request.body) - reserved_bytes)
                reserved_bytes = len(request.body)
        self._ready.append((request, keeps_alive, reserved_bytes))
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        """Begin the next request, if one waits and what was answered has gone out."""
        if not self._ready or not self._can_write.is_set():
            return
        request, self._keeps_alive, self._answered_bytes = self._ready.popleft()
        self._is_busy = True
        try:
            self._cancel = self._routes.begin(request, self._answered)
        except Exception:
            # The way that takes a task says so to the caller, or finds an answer after all.
            logger.exception("a request could not be begun: a bug of ours")
        if self._cancel is None:
            self._task = self._loop.create_task(self._answer(request))

    def _answered(self, reply: HttpReply) -> None:
        self._cancel = None
        self._send(reply, keeps_alive=self._keeps_alive and not self._closes_when_idle)
        if reply.status in _REFUSALS:
            self._turns.refused(self)
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
        if self._answered_bytes:
            self._give(self._answered_bytes)
        if not self._keeps_alive or self._closes_when_idle:
            self._hang_up()
        elif self._ready:
            self._next()
        elif not self.is_reading:
            self.watch(self.limits.keep_alive_timeout_s)
        elif self._owes_invitation:
            self.invite()

    def close_when_idle(self) -> None:
        """Answer one more request at most. One that is on its way now must not meet a closed
        socket (the kernel would reset the connection), so an idle connection waits a while for it.
        """
        self._closes_when_idle = True
        if not self._is_broken:
            # What it sent while it rested is answered before it is closed.
            self.resume()
        if not self._is_busy and not self.is_reading:
            self.watch(LINGER_S)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _send(self, reply: HttpReply, *, keeps_alive: bool, has_body: bool = True) -> None:
        head = reply_head(reply, keeps_alive=keeps_alive)
        self.write(head, *(reply.chunks if has_body else ()))

    async def _send_stream(self, reply: HttpStream, *, keeps_alive: bool) -> None:
        """Parts as they come, no faster than the caller reads. Where the connection ends with the
        reply, its end is the body's (a caller of HTTP/1.0 knows no chunks)."""
        self.write(stream_head(reply, keeps_alive=keeps_alive))
        try:
            # Closed also when the caller has gone: what makes the parts is to end at once.
            async with aclosing(reply.parts) as parts:
                async for part in parts:
                    size = b"%x\r\n" % len(part)
                    self.write(*((size, part, b"\r\n") if keeps_alive else (part,)))
                    await self._can_write.wait()
        except Exception:
            # The status has been sent: a cut connection is all that can still tell the caller.
            logger.exception("a streamed reply ended with a bug of ours")
            self.abort()
            return
        if keeps_alive:
            self.write(b"0\r\n\r\n")

    def write(self, *parts: bytes | memoryview) -> None:
        if self._transport is not None and not self._transport.is_closing():
            if len(parts) > 1 and sum(map(len, parts)) > _JOINED_BYTES:
                self._transport.writelines(parts)
            else:
                self._transport.write(b"".join(parts))

    def _refuse(self, error: SquadronError) -> None:
        """Answer and hang up: after a parse error the stream has no meaning any more."""
        self._is_broken = True
        self.watch(None)
        self.forget()
        if self._is_busy or self._ready:
            # What is being answered still is, and says that it is the last.
            self._closes_when_idle = True
        else:
            self._release()
            self._send(error_reply(error), keeps_alive=False)
            self._hang_up()

    def _hang_up(self) -> None:
        """A caller that may still send must get to read the answer: closed with bytes unread, the
        kernel would take it back."""
        if not self._is_broken:
            self._close()
        elif self._transport is not None and not self._transport.is_closing():
            if self._transport.can_write_eof():  # TLS has no half-closed connections
                self._transport.write_eof()
            self._loop.call_later(LINGER_S, self._close)

    def _close(self) -> None:
        """What was written still goes out, to who reads it."""
        if self._transport is not None:
            self._transport.close()
            self._reader.watch(self._transport)

    def watch(self, patience_s: float | None) -> None:
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
        elif self.is_reading:
            self._refuse(InvalidRequest("the request did not arrive in time"))
        else:
            self._close()

    def invite(self) -> None:
        """Not inside the answers to requests before it, nor before them."""
        self._owes_invitation = self._is_busy or bool(self._ready)
        if self._owes_invitation:
            self.watch(None)
        else:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.begin_body()

    def reserve(self, num_bytes: int) -> None:
        self._budget.take(num_bytes)
        self._held_bytes += num_bytes

    def enlarge(self, num_bytes: int) -> None:
        self.reserve(num_bytes)
        self._answered_bytes += num_bytes

    def _give(self, num_bytes: int) -> None:
        self._answered_bytes = 0
        self._held_bytes -= num_bytes
        self._budget.give(num_bytes)

    def _release(self) -> None:
        self._budget.give(self._held_bytes)
        self._held_bytes = self._answered_bytes = 0

    def _sent(self) -> None:
        self._budget.give(self._unsent_bytes)
        self._unsent_bytes = 0
