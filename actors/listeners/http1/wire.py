"""Bytes of HTTP: what comes again and is made or read once, and how many may be held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import NamedTuple

from actors.listeners.http_messages import HttpReply, HttpStream
from cluster.errors import Overloaded

_MAX_REMEMBERED = 256
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_HEADS: dict[tuple[int, str], bytes] = {}

HEADER_NAMES: dict[bytes, str] = {}
"""Header names as callers wrote them, and in lower case."""


class RepeatedHead(NamedTuple):
    """The head of a request that is likely to come again, and what it said."""

    head: bytes
    num_bytes: int
    method: str
    path: str
    headers: Mapping[str, str]

    def fits(self, data: bytes) -> bool:
        """Whether `data` is one whole request with this head: equal heads announce equal bodies."""
        return len(data) == self.num_bytes and data.startswith(self.head)


class ByteBudget:
    """What all connections of a listener may hold at once: bodies until they are answered, and
    answers until their callers have read them."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Raises: Overloaded, with nothing taken, when they do not fit."""
        if self.held_bytes + num_bytes > self.limit_bytes:
            raise Overloaded(
                f"requests under way hold {self.held_bytes} of {self.limit_bytes} bytes "
                f"(limits.max_buffered_bytes), {num_bytes} more do not fit",
                retry_after_s=1.0,
            )
        self.held_bytes += num_bytes

    def hold(self, num_bytes: int) -> None:
        """Of what cannot be refused any more: an answer that was computed."""
        self.held_bytes += num_bytes

    def give(self, num_bytes: int) -> None:
        self.held_bytes -= num_bytes

    @contextmanager
    def taken(self, num_bytes: int) -> Iterator[None]:
        """`take`, and `give` at the end. Raises: Overloaded."""
        self.take(num_bytes)
        try:
            yield
        finally:
            self.give(num_bytes)


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
