"""An HTTP request and its reply, between a listener and the routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

import orjson

from cluster.errors import MethodNotAllowed, SquadronError

JSON = "application/json"


@dataclass(slots=True, kw_only=True)
class HttpRequest:
    """Header names are lower case. `path` is without the query. `is_local`: the caller's address
    is a loopback one. `reserve` is told how many bytes a body grew to.
    Not frozen: a field of a frozen one costs four times as much to set.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    is_local: bool = False
    reserve: Callable[[int], None] | None = None


@dataclass(slots=True, kw_only=True)
class HttpReply:
    """`chunks` are sent one after the other; together they are the whole body."""

    status: int
    chunks: tuple[bytes | memoryview, ...] = ()
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def num_bytes(self) -> int:
        return sum(len(chunk) for chunk in self.chunks)


@dataclass(slots=True, kw_only=True)
class HttpStream:
    """A reply whose end is not known when it begins: its parts are sent as they come."""

    parts: AsyncGenerator[bytes, None]
    content_type: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Answers(Protocol):
    """What a listener needs: an answer for every request."""

    async def answer(self, request: HttpRequest) -> HttpReply | HttpStream: ...

    def begin(
        self, request: HttpRequest, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        """Have the request answered without a task: `done` is called later, once, unless what is
        returned here is called before. None: it takes more than that; `answer` is to be asked."""
        ...


def error_reply(error: SquadronError, told: Sequence[tuple[str, str]] = ()) -> HttpReply:
    """`{"error": text}` with the error's status, `Allow` and `Retry-After` where they apply, and
    the headers `told`."""
    headers = list(told)
    if isinstance(error, MethodNotAllowed):
        headers.append(("Allow", str(error.details.get("allow", ""))))
    if "accept_encoding" in error.details:
        headers.append(("Accept-Encoding", str(error.details["accept_encoding"])))
    if error.retry_after_s is not None:
        headers.append(("Retry-After", str(max(1, round(error.retry_after_s)))))
    return HttpReply(
        status=error.http_status,
        chunks=(orjson.dumps({"error": error.message}),),
        headers=tuple(headers),
    )


def json_reply(content: object) -> HttpReply:
    return HttpReply(status=200, chunks=(orjson.dumps(content),))


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, also an IPv4 one written as IPv6."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
