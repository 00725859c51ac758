"""Requests noted while they last: for the access log, and for the ids in other lines.

Chosen at the start: a door that writes neither has nothing of this on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from actors.listeners.http_messages import Answers, HttpReply, HttpRequest, HttpStream
from actors.logs.line import LINE, MAX_TEXT, Line
from actors.logs.set_up import ACCESS
from actors.tracing.follows import Follows, Found
from cluster.config.observability.logs import LogsConfig
from cluster.requests import InferenceRequest

CALLER_GONE = 499
"""As nginx writes it."""

_access = logging.getLogger(ACCESS)


def follows_of(spans: Follows | None, logs: LogsConfig) -> Follows | None:
    """What a door shows its requests to."""
    return Notes(spans) if _is_noted(logs) else spans


def noted(routes: Answers, logs: LogsConfig) -> Answers:
    """The same routes, their requests noted where somebody wants to know them."""
    return NotedRoutes(routes, is_written=logs.access_log) if _is_noted(logs) else routes


def _is_noted(logs: LogsConfig) -> bool:
    return logs.access_log or logs.format == "json"


class Notes:
    """`Follows` of a door: what the line does not know from the transport. `spans` comes first."""

    def __init__(self, spans: Follows | None) -> None:
        self._spans = spans

    def began(self, request: InferenceRequest) -> None:
        if self._spans is not None:
            self._spans.began(request)
        line = LINE.get()
        if line is None:
            return
        line.inner, request.follower = request.follower, line
        line.model = request.model[:MAX_TEXT]
        line.tenant = request.tenant[:MAX_TEXT]
        line.request_id = (request.tracking_id or request.request_id)[:MAX_TEXT]
        if request.trace:
            line.trace_id = request.trace[3:35]

    async def member(
        self, request: InferenceRequest, work: Awaitable[Found], name: str = "member"
    ) -> Found:
        return await (work if self._spans is None else self._spans.member(request, work, name))


class NotedRoutes:
    """HTTP."""

    def __init__(self, routes: Answers, *, is_written: bool) -> None:
        self._routes = routes
        self._is_written = is_written

    def begin(
        self, request: HttpRequest, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        line = _line(request)
        token = LINE.set(line)
        try:
            cancel = self._routes.begin(request, partial(self._done, line, done))
        finally:
            LINE.reset(token)
        return None if cancel is None else partial(self._cancel, line, cancel)

    async def answer(self, request: HttpRequest) -> HttpReply | HttpStream:
        # Each request has a task, and so a context, of its own; a stream goes on in it.
        line = _line(request)
        LINE.set(line)
        try:
            reply = await self._routes.answer(request)
        except asyncio.CancelledError:
            self._write(line, CALLER_GONE)
            raise
        if isinstance(reply, HttpStream):
            reply.parts = self._counted(line, reply)
        else:
            line.bytes_out = reply.num_bytes
            self._write(line, reply.status)
        return reply

    def _done(self, line: Line, done: Callable[[HttpReply], None], reply: HttpReply) -> None:
        line.bytes_out = reply.num_bytes
        self._write(line, reply.status)
        done(reply)

    def _cancel(self, line: Line, cancel: Callable[[], None]) -> None:
        cancel()
        self._write(line, CALLER_GONE)

    async def _counted(self, line: Line, reply: HttpStream) -> AsyncGenerator[bytes, None]:
        status = CALLER_GONE
        try:
            async with aclosing(reply.parts) as parts:
                async for part in parts:
                    line.bytes_out += len(part)
                    yield part
            status = reply.status
        finally:
            self._write(line, status)

    def _write(self, line: Line, status: int) -> None:
        line.status = status
        if self._is_written:
            write(line)


def write(line: Line) -> None:
    """To the access log."""
    _access.info("%s %s", line.method, line.path, extra={"squadron": line.fields()})


def noted_rpc(name: str, work: Any, logs: LogsConfig) -> Any:
    """A gRPC method with one answer, noted where somebody wants to know its requests."""
    if not _is_noted(logs):
        return work

    async def run(data: bytes, context: Any) -> bytes:
        line = _line_of_rpc(name, context, len(data))
        try:
            answer: bytes = await work(data, context)
            line.bytes_out = len(answer)
            return answer
        finally:
            _end_rpc(line, context, logs)

    return run


def noted_stream(name: str, work: Any, logs: LogsConfig) -> Any:
    """The same for a method with any number of answers: one line, of its last request."""
    if not _is_noted(logs):
        return work

    async def run(asked: Any, context: Any) -> AsyncIterator[bytes]:
        line = _line_of_rpc(name, context, len(asked) if isinstance(asked, bytes) else 0)
        try:
            async for answer in work(asked, context):
                line.bytes_out += len(answer)
                yield answer
        finally:
            _end_rpc(line, context, logs)

    return run


def _end_rpc(line: Line, context: Any, logs: LogsConfig) -> None:
    if not logs.access_log:
        return
    code = context.code()
    line.status = "CANCELLED" if context.cancelled() else getattr(code, "name", "") or "OK"
    write(line)


def _line(request: HttpRequest) -> Line:
    return _of_caller(request.method, request.path, request.headers, len(request.body))


def _line_of_rpc(name: str, context: Any, size: int) -> Line:
    metadata = {
        key: value for key, value in (context.invocation_metadata() or ()) if isinstance(value, str)
    }
    line = _of_caller("gRPC", name, metadata, size)
    LINE.set(line)
    return line


def _of_caller(method: str, path: str, headers: Mapping[str, str], size: int) -> Line:
    return Line(
        method,
        path,
        request_id=headers.get("x-request-id", ""),
        tenant=headers.get("x-squadron-tenant", ""),
        trace_parent=headers.get("traceparent", ""),
        size=size,
    )
