"""Who may change a door at run time: callers with a key for it, where there are keys; else those
on this machine, and no web page in their browser.

A page of any site can make a browser send requests to loopback. Browsers name the page's site in
`Origin` with every request that is not a plain read, and a name that was re-bound to loopback
shows in `Host`; so both are checked. Programs send neither a foreign `Host` nor an `Origin`.
"""

from __future__ import annotations

from functools import wraps
from typing import Any
from urllib.parse import unquote, urlsplit

from actors.access.callers import has_key, is_admin
from actors.listeners.http_messages import JSON, HttpReply, HttpRequest, HttpStream, is_loopback
from actors.listeners.routes.table import Handler, Place
from cluster.errors import Forbidden, InvalidRequest

_FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})
"""A proxy on this machine makes every caller look local."""
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


def guarded(answer: Handler, *, changes: bool = True) -> Handler:
    """The handler, for callers that may use it. `changes`: it has an effect, so that the body must
    be JSON too."""

    @wraps(answer)
    async def checked(request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        check_caller(request)
        if changes:
            _check_content_type(request)
        return await answer(request, place)

    return checked


def check_caller(request: HttpRequest) -> None:
    """Raises: Forbidden."""
    # The route has asked for the key that it needs; no page and no proxy can have added one.
    if has_key():
        return
    headers = request.headers
    if not request.is_local:
        raise Forbidden(
            "this route answers on loopback only: call it on the server's own machine, or "
            "configure server.api_keys and send an admin key"
        )
    if not _FORWARDED.isdisjoint(headers):
        raise Forbidden("this route does not answer what a proxy passes on")
    host = headers.get("host", "")
    if not _is_own_name(host):
        raise Forbidden(f"this route answers to a loopback name only, not to Host {host[:80]!r}")
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        raise Forbidden(f"this route does not answer web pages of {origin[:80]!r}")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Forbidden("this route does not answer web pages of other sites")


def is_own_program(request: HttpRequest) -> bool:
    """Whether it comes from a program on this machine itself: no page of a browser here, which
    names its site in `Origin`, and nothing that a proxy here passes on."""
    headers = request.headers
    return request.is_local and "origin" not in headers and _FORWARDED.isdisjoint(headers)


def _is_own_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or is_loopback(name)


def _check_content_type(request: HttpRequest) -> None:
    """JSON. A caller that is no browser may leave it out or send raw bytes' type, as the public
    clients of the protocol do; a form's type is what a page without scripts can send, also with
    nothing in it.

    Raises: InvalidRequest.
    """
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_page = "origin" in request.headers or "sec-fetch-site" in request.headers
    if sent == JSON:
        return
    if is_page or sent in _FORMS or sent == "text/plain":
        raise InvalidRequest(f"this route takes content-type {JSON}, got {sent[:60]!r}")


def check_peer(context: Any) -> None:
    """The same for gRPC, which no page can speak. Its `peer` is `ipv4:127.0.0.1:4711` and the like,
    and its metadata are what headers are to HTTP.

    Raises: Forbidden.
    """
    if is_admin():
        return
    kind, _, address = unquote(context.peer()).partition(":")
    host = address.rpartition(":")[0].strip("[]")
    if kind != "unix" and not is_loopback(host):
        raise Forbidden(
            "this call is answered on loopback only: make it on the server's machine, or "
            "configure server.api_keys and send an admin key"
        )
    if not _FORWARDED.isdisjoint(name for name, _ in context.invocation_metadata() or ()):
        raise Forbidden("this call does not answer what a proxy passes on")
