"""`/ui`: the files of the console. They hold no data: the page asks the other routes for it, with
the key of its caller where there are keys."""

from __future__ import annotations

import hashlib
from functools import partial
from importlib.resources import files

from actors.listeners.http_messages import HttpReply, HttpRequest
from actors.listeners.routes.table import Place, Route

_PAGE = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from another host, no frame around it, no script of anybody else's."""


def console_routes() -> list[Route]:
    """Read once, when the door starts."""
    paths = {"/ui": _PAGE, "/ui/console.css": "console.css", "/ui/console.js": "console.js"}
    return [_route(path, name) for path, name in paths.items()]


def _route(path: str, name: str) -> Route:
    data = files("actors.console").joinpath("page", name).read_bytes()
    kind = _TYPES[name[name.rindex(".") :]]
    etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    return Route(
        method="GET",
        path=path,
        answer=partial(_answer, data=data, kind=kind, etag=etag),
        summary="The console" if name == _PAGE else "A file of the console",
        answers_with=kind.partition(";")[0],
    )


async def _answer(
    request: HttpRequest, place: Place, *, data: bytes, kind: str, etag: str
) -> HttpReply:
    headers = (
        ("etag", etag),
        # A new version is seen at once, and an old one costs no bytes.
        ("cache-control", "no-cache"),
        ("content-security-policy", _POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    )
    if _has(request.headers.get("if-none-match", ""), etag):
        return HttpReply(status=304, headers=headers)
    return HttpReply(status=200, chunks=(data,), content_type=kind, headers=headers)


def _has(header: str, etag: str) -> bool:
    """Whether a browser or a cache in front has this content (RFC 9110, 13.1.2: compared weakly,
    for a proxy that compresses makes our tags weak)."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or tags == ["*"]
