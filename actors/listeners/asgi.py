"""Serve's own ingress as a second, slower door over the same routes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from actors.listeners.http_messages import HttpRequest, HttpStream, is_loopback
from actors.listeners.http_routes import HttpRoutes


async def answer(routes: HttpRoutes, request: Request) -> Response:
    asked = HttpRequest(
        method=request.method,
        path=request.url.path,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=await request.body(),
        is_local=request.client is not None and is_loopback(request.client.host),
    )
    reply = await routes.answer(asked)
    if isinstance(reply, HttpStream):
        return StreamingResponse(
            reply.parts,
            status_code=reply.status,
            headers=dict(reply.headers),
            media_type=reply.content_type,
        )
    return Response(
        content=b"".join(reply.chunks),
        status_code=reply.status,
        headers=dict(reply.headers),
        media_type=reply.content_type,
    )
