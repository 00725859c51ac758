"""An HTTP request and its reply, between a listener and the routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson

from cluster.errors import MethodNotAllowed, SquadronError

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """Header names are lower case. `path` is without the query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """`chunks` are sent one after the other; together they are the whole body."""

    status: int
    chunks: tuple[bytes | memoryview, ...] = ()
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def num_bytes(self) -> int:
        return sum(len(chunk) for chunk in self.chunks)


class Answers(Protocol):
    """What a listener needs: an answer for every request."""

    async def answer(self, request: HttpRequest) -> HttpReply: ...


def error_reply(error: SquadronError) -> HttpReply:
    """`{"error": text}` with the error's status, `Allow` and `Retry-After` where they apply."""
    headers: list[tuple[str, str]] = []
    if isinstance(error, MethodNotAllowed):
        headers.append(("Allow", str(error.details.get("allow", ""))))
    if error.retry_after_s is not None:
        headers.append(("Retry-After", str(max(1, round(error.retry_after_s)))))
    return HttpReply(
        status=error.http_status,
        chunks=(orjson.dumps({"error": error.message}),),
        headers=tuple(headers),
    )
