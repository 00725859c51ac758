"""Requests that cannot be begun, over real sockets: each is answered, and none stays counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from actors.delivery.serve_handle import ServeHandle
from actors.delivery.transport import HandleTransport
from actors.listeners.http import HttpListener
from actors.listeners.http_messages import HttpReply, HttpRequest
from actors.listeners.port_claim import claim_port
from cluster.routing.table import VariantRoute
from tests.actors.listeners.doors import Door, make_door, simple_body

INFER = "/v2/models/simple/infer"


@asynccontextmanager
async def asking(folder: Path, door: Door) -> AsyncIterator[httpx.AsyncClient]:
    with claim_port("127.0.0.1", 0, key="k", folder=folder) as claim:
        listener = HttpListener(door.routes, door.front.server.limits)
        await listener.start(claim, folder)
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{claim.port}", timeout=20
            ) as client:
                yield client
        finally:
            await listener.drain(0.1)


def in_flight(door: Door) -> float:
    return door.front.load_of("simple").requests_in_flight


def refused(door: Door) -> float:
    door.front.write_counts()
    metrics = door.front._metrics.door.refused
    return float(metrics.labels("", "in_flight")._value.get())


def _unknown(deployment: str, app: str) -> object:
    raise KeyError(f"Deployment(name='{deployment}', app='{app}') does not exist.")


async def test_a_model_whose_deployment_is_not_there_yet_is_503_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    transport = HandleTransport("simple", "app")
    transport._handle = ServeHandle("simple", "app", find=_unknown)
    door = make_door(tmp_path, transport=transport, limits={"max_in_flight": 2})

    async with asking(tmp_path, door) as client:
        replies = [await client.post(INFER, content=simple_body()) for _ in range(4)]

    assert [reply.status_code for reply in replies] == [503] * 4
    assert {reply.headers["retry-after"] for reply in replies} == {"1"}
    assert "being deployed" in replies[0].json()["error"]
    assert in_flight(door) == 0


async def test_a_bug_on_the_way_to_a_model_is_a_500_and_the_door_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    door = make_door(tmp_path, limits={"max_in_flight": 2})

    def broken(route: VariantRoute) -> HandleTransport:
        raise RuntimeError("a bug")

    make, door.front._dispatchers._make_transport = door.front._dispatchers._make_transport, broken
    async with asking(tmp_path, door) as client:
        broken_ones = [await client.post(INFER, content=simple_body()) for _ in range(4)]
        door.front._dispatchers._make_transport = make
        whole = await client.post(INFER, content=simple_body())

    assert [reply.status_code for reply in broken_ones] == [500] * 4
    assert "a bug" not in broken_ones[0].text
    assert whole.status_code == 200
    assert in_flight(door) == 0


class Never:
    """A transport that raises where it should have begun to send."""

    def send(self, calls: Sequence[object], withdrawals: object) -> list[object]:
        raise RuntimeError("a bug")


async def test_a_bug_in_sending_is_told_to_those_who_wait(tmp_path: Path) -> None:
    door = make_door(tmp_path, transport=Never())  # type: ignore[arg-type]

    async with asking(tmp_path, door) as client:
        reply = await client.post(INFER, content=simple_body())

    assert (reply.status_code, "a bug" in reply.text) == (500, False)
    assert in_flight(door) == 0


async def test_a_request_too_many_is_refused_and_counted_once(tmp_path: Path) -> None:
    door = make_door(tmp_path, limits={"max_in_flight": 1})
    before = refused(door)

    async with asking(tmp_path, door) as client:
        door.front._num_in_flight = 1
        reply = await client.post(INFER, content=simple_body())
        door.front._num_in_flight = 0

    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert refused(door) - before == 1


class Raising:
    """Routes with a bug in `begin`."""

    def begin(
        self, request: HttpRequest, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        raise RuntimeError("a bug")

    async def answer(self, request: HttpRequest) -> HttpReply:
        return HttpReply(status=200, chunks=(request.path.encode(),))


async def test_a_connection_survives_a_bug_in_what_begins_its_requests(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    bugged = Door(front=door.front, offered=door.offered, routes=Raising())  # type: ignore[arg-type]

    async with asking(tmp_path, bugged) as client:
        replies = [await client.get(path) for path in ("/a", "/b")]

    assert [reply.text for reply in replies] == ["/a", "/b"]
