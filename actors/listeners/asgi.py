"""Serve's own ingress as a second, slower door over the same routes and limits."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from actors.listeners.http_messages import (
    Answers,
    HttpRequest,
    HttpStream,
    error_reply,
    is_loopback,
)
from cluster.errors import PayloadTooLarge

CLIENT_CLOSED = 499
"""What nginx and Serve log for a caller that left; nobody reads it."""


async def answer(routes: Answers, request: Request, *, max_body_bytes: int) -> Response:
    """Never raises. No more of a body is kept than `max_body_bytes`."""
    try:
        body = await _body(request, max_body_bytes)
    except PayloadTooLarge as error:
        reply = error_reply(error)
        return Response(b"".join(reply.chunks), reply.status, media_type=reply.content_type)
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED)
    asked = HttpRequest(
        method=request.method,
        path=request.url.path,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        is_local=request.client is not None and is_loopback(request.client.host),
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


async def _body(request: Request, limit: int) -> bytes:
    """Raises: PayloadTooLarge as soon as it is known; ClientDisconnect."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limit:
        raise _too_large(told, limit)
    parts: list[bytes] = []
    num_bytes = 0
    async for part in request.stream():
        num_bytes += len(part)
        if num_bytes > limit:
            raise _too_large(f"more than {limit}", limit)
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
