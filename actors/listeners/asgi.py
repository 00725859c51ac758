"""Serve's own ingress as a second, slower door over the same routes and limits."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from actors.listeners.http1.wire import ByteBudget
from actors.listeners.http_messages import (
    Answers,
    HttpRequest,
    HttpStream,
    error_reply,
    is_loopback,
)
from cluster.errors import Overloaded, PayloadTooLarge

CLIENT_CLOSED = 499
"""What nginx and Serve log for a caller that left; nobody reads it."""


async def answer(
    routes: Answers, request: Request, *, max_body_bytes: int, budget: ByteBudget
) -> Response:
    """Never raises. No more of a body is kept than `max_body_bytes`, and no more of all of them
    together than `budget` has left, until they are answered."""
    held = _Held(budget)
    try:
        return await _answer(routes, request, max_body_bytes, held)
    finally:
        held.release()


async def _answer(routes: Answers, request: Request, max_body_bytes: int, held: _Held) -> Response:
    try:
        body = await _body(request, max_body_bytes, held)
    except (PayloadTooLarge, Overloaded) as error:
        reply = error_reply(error)
        return Response(
            b"".join(reply.chunks),
            reply.status,
            headers=dict(reply.headers),
            media_type=reply.content_type,
        )
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED)
    asked = HttpRequest(
        method=request.method,
        path=request.url.path,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        is_local=request.client is not None and is_loopback(request.client.host),
        reserve=held.take,
    )
    found = await routes.answer(asked)
    if isinstance(found, HttpStream):
        return _Stream(
            found.parts,
            status_code=found.status,
            headers=dict(found.headers),
            media_type=found.content_type,
        )
    return Response(
        content=b"".join(found.chunks),
        status_code=found.status,
        headers=dict(found.headers),
        media_type=found.content_type,
    )


class _Held:
    """What one request holds of a budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Raises: Overloaded."""
        self._budget.take(num_bytes)
        self._num_bytes += num_bytes

    def release(self) -> None:
        self._budget.give(self._num_bytes)
        self._num_bytes = 0


async def _body(request: Request, limit: int, held: _Held) -> bytes:
    """Raises: PayloadTooLarge as soon as it is known; Overloaded; ClientDisconnect."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limit:
        raise _too_large(told, limit)
    parts: list[bytes] = []
    num_bytes = 0
    async for part in request.stream():
        num_bytes += len(part)
        if num_bytes > limit:
            raise _too_large(f"more than {limit}", limit)
        held.take(len(part))
        parts.append(part)
    return b"".join(parts)


def _too_large(found: str, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body has {found} bytes, at most {limit} are allowed")


class _Stream(StreamingResponse):
    """Closes its parts also when the caller has gone: what makes them is to end at once."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            close = getattr(self.body_iterator, "aclose", None)
            if close is not None:
                await close()
