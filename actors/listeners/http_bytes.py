"""What a reply looks like on the wire, up to its body. What is always the same is made once."""

from __future__ import annotations

from http import HTTPStatus

from actors.listeners.http_messages import HttpReply, HttpStream

_MAX_REMEMBERED = 256
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_HEADS: dict[tuple[int, str], bytes] = {}

HEADER_NAMES: dict[bytes, str] = {}
"""Header names as callers wrote them, and in lower case."""


def reply_head(reply: HttpReply, *, keeps_alive: bool) -> bytes:
    """Status line and headers, with the empty line that ends them."""
    head = b"%scontent-length: %d\r\n" % (_head(reply.status, reply.content_type), reply.num_bytes)
    for name, value in reply.headers:
        head += f"{name}: {value}\r\n".encode("latin-1")
    return head + (b"\r\n" if keeps_alive else b"connection: close\r\n\r\n")


def stream_head(reply: HttpStream, *, keeps_alive: bool) -> bytes:
    """The same for a reply in chunks. Where the connection ends with the reply, its end is the
    body's (a caller of HTTP/1.0 knows no chunks)."""
    head = _head(reply.status, reply.content_type)
    for name, value in reply.headers:
        head += f"{name}: {value}\r\n".encode("latin-1")
    how = b"transfer-encoding: chunked" if keeps_alive else b"connection: close"
    return head + how + b"\r\n\r\n"


def lower_name(name: bytes) -> str:
    """A header's name in lower case; callers choose names, so not all of them are remembered."""
    lower = name.decode("latin-1").lower()
    if len(HEADER_NAMES) < _MAX_REMEMBERED:
        HEADER_NAMES[name] = lower
    return lower


def _head(status: int, content_type: str) -> bytes:
    key = (status, content_type)
    head = _HEADS.get(key)
    if head is None:
        reason = _REASONS.get(status, b"")
        named = content_type.encode()
        head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\n" % (status, reason, named)
        if len(_HEADS) < _MAX_REMEMBERED:
            _HEADS[key] = head
    return head
