"""The second door: Serve's ingress hands a Starlette request in. No Ray, no socket."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from actors.listeners import asgi
from actors.listeners.http1.wire import ByteBudget
from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream
from tests.actors.listeners.doors import SUM, make_door, simple_body

INFER = "/v2/models/simple/infer"
LIMIT = 4096


async def answered(routes: Any, request: Request, budget: ByteBudget | None = None) -> Response:
    return await asgi.answer(
        routes, request, max_body_bytes=LIMIT, budget=budget or ByteBudget(10 * LIMIT)
    )


def client(routes: Any, budget: ByteBudget | None = None) -> httpx.AsyncClient:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await answered(routes, Request(scope, receive), budget)
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
    response = await answered(routes, Request(scope, receive))
    with contextlib.suppress(ClientDisconnect):
        await response(scope, receive, send)

    assert num_sent == 4
    assert routes.is_closed


async def test_a_caller_that_leaves_in_its_body_is_no_bug(tmp_path: Path) -> None:
    async def gone() -> Message:
        return {"type": "http.disconnect"}

    scope: Scope = {"type": "http", "method": "POST", "path": INFER, "headers": []}
    routes = make_door(tmp_path).routes
    response = await answered(routes, Request(scope, gone))

    assert response.status_code == 499


async def test_bodies_beyond_the_doors_budget_are_refused_and_what_was_held_is_given_back(
    tmp_path: Path,
) -> None:
    budget = ByteBudget(LIMIT)
    budget.take(LIMIT - 1000)
    async with client(make_door(tmp_path).routes, budget) as asking:
        refused = await asking.post(INFER, content=bytes(1001))
        squeezed = await asking.post(
            INFER, content=gzip.compress(bytes(2000)), headers={"content-encoding": "gzip"}
        )
        fits = await asking.post(INFER, content=simple_body())

    assert refused.status_code == squeezed.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert "limits.max_buffered_bytes" in refused.json()["error"]
    assert fits.status_code == 200
    assert budget.held_bytes == LIMIT - 1000
