"""Serve's own ingress as a second, slower door over the same routes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from actors.listeners.http_messages import HttpRequest
from actors.listeners.http_routes import HttpRoutes


async def answer(routes: HttpRoutes, request: Request) -> Response:
    asked = HttpRequest(
        method=request.method,
        path=request.url.path,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=await request.body(),
    )
    reply = await routes.answer(asked)
    return Response(
        content=b"".join(reply.chunks),
        status_code=reply.status,
        headers=dict(reply.headers),
        media_type=reply.content_type,
    )
