"""A door over real sockets for the SDK to talk to, without Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actors.listeners.grpc.listener import GrpcListener
from actors.listeners.http import HttpListener
from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream
from actors.listeners.port_claim import claim_port
from cluster.config.server import LimitsConfig
from cluster.routing.table import VariantRoute
from cluster.tensors import Signature
from tests.actors.listeners.doors import Door, make_door


@dataclass(slots=True)
class Watching:
    """The door's own routes; notes what comes, and refuses first what `refusals` holds."""

    door: Door
    refusals: list[HttpReply] = field(default_factory=list)
    seen: list[HttpRequest] = field(default_factory=list)

    def widen(self, width: int) -> None:
        """`simple` takes rows of `width` numbers from now on."""
        table = self.door.front.table
        simple = table.routes["simple"]
        assert isinstance(simple, VariantRoute)
        sides = {
            side: tuple(
                replace(spec, shape=(-1, width)) for spec in getattr(simple.signature, side)
            )
            for side in ("inputs", "outputs")
        }
        facts = replace(simple.facts, signature=Signature(**sides))
        routes = {**table.routes, "simple": replace(simple, facts=facts)}
        self.door.front.adopt(replace(table, version=table.version + 1, routes=routes))

    def begin(
        self, request: HttpRequest, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        return None

    async def answer(self, request: HttpRequest) -> HttpReply | HttpStream:
        self.seen.append(request)
        if self.refusals and request.path.endswith("/infer"):
            return self.refusals.pop(0)
        return await self.door.routes.answer(request)


@asynccontextmanager
async def http_door(
    folder: Path, door: Door | None = None, **server: Any
) -> AsyncIterator[tuple[Watching, str]]:
    """What answers, and its address. `door`: instead of the usual one."""
    watching = Watching(door or make_door(folder, **server))
    with claim_port("127.0.0.1", 0, key="k", folder=folder) as claim:
        listener = HttpListener(watching, LimitsConfig())
        await listener.start(claim, folder)
        try:
            yield watching, f"http://127.0.0.1:{claim.port}"
        finally:
            await listener.drain(1.0)


@asynccontextmanager
async def http_address(folder: Path) -> AsyncIterator[str]:
    async with http_door(folder) as (_, url):
        yield url


@asynccontextmanager
async def grpc_address(folder: Path) -> AsyncIterator[str]:
    """A door's gRPC listener."""
    door = make_door(folder)
    with claim_port("127.0.0.1", 0, key="k", folder=folder) as claim:
        listener = GrpcListener(door.front, door.offered)
        await listener.start(claim)
        yield f"grpc://127.0.0.1:{claim.port}"
        await listener.drain(0.1)
