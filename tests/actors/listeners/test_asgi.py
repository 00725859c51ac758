"""The second door: Serve's ingress hands a Starlette request in. No Ray, no socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from actors.listeners import asgi
from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream
from tests.actors.listeners.doors import SUM, make_door, simple_body

INFER = "/v2/models/simple/infer"
LIMIT = 4096


def client(routes: Any) -> httpx.AsyncClient:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await asgi.answer(routes, Request(scope, receive), max_body_bytes=LIMIT)
        await response(scope, receive, send)

    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:8500")


async def test_a_request_is_answered_as_by_the_first_door(tmp_path: Path) -> None:
    async with client(make_door(tmp_path).routes) as asking:
        answer = await asking.post(INFER, content=simple_body())
        wrong = await asking.get(INFER)

    assert answer.json()["outputs"][0]["data"] == SUM
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


async def test_a_body_beyond_the_limit_is_refused_by_what_it_says_or_by_what_comes(
    tmp_path: Path,
) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1000
            yield bytes(1000)

    async with client(make_door(tmp_path).routes) as asking:
        told = await asking.post(INFER, content=bytes(LIMIT + 1))
        untold = await asking.post(INFER, content=endless())
        fits = await asking.post(INFER, content=simple_body() + b" " * (LIMIT - len(simple_body())))

    assert told.status_code == untold.status_code == 413
    assert told.json() == {"error": "the body has 4097 bytes, at most 4096 are allowed"}
    assert untold.json() == {"error": "the body has more than 4096 bytes, at most 4096 are allowed"}
    assert taken <= LIMIT + 1000
    assert fits.status_code == 200


class _Counting:
    """Answers with a stream without end, and knows whether it was closed."""

    is_closed = False

    async def answer(self, request: HttpRequest) -> HttpReply | HttpStream:
        return HttpStream(parts=self._parts(), content_type="text/event-stream")

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: {}\n\n"
        finally:
            self.is_closed = True


async def test_a_caller_that_leaves_ends_a_stream() -> None:
    routes = _Counting()
    num_sent = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal num_sent
        num_sent += 1
        if num_sent > 3:
            raise OSError("the caller has gone")

    scope: Scope = {
        "type": "http", "method": "POST", "path": INFER, "headers": [], "query_string": b"",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
    }  # fmt: skip
    response = await asgi.answer(routes, Request(scope, receive), max_body_bytes=LIMIT)  # type: ignore[arg-type]
    with contextlib.suppress(ClientDisconnect):
        await response(scope, receive, send)

    assert num_sent == 4
    assert routes.is_closed


async def test_a_caller_that_leaves_in_its_body_is_no_bug(tmp_path: Path) -> None:
    async def gone() -> Message:
        return {"type": "http.disconnect"}

    scope: Scope = {"type": "http", "method": "POST", "path": INFER, "headers": []}
    routes = make_door(tmp_path).routes
    response = await asgi.answer(routes, Request(scope, gone), max_body_bytes=LIMIT)

    assert response.status_code == 499
