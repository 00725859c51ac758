"""A front door without Ray: models that are Python functions, reached through a fake transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson

from actors.delivery.transport import Transport
from actors.extensions.offered import Offered, make_offered
from actors.front_door import FrontDoor
from actors.listeners.grpc.listener import GrpcListener
from actors.listeners.http_messages import HttpReply, HttpRequest
from actors.listeners.http_routes import HttpRoutes
from actors.listeners.port_claim import claim_port
from cluster.config.server import ServerConfig
from cluster.config.variant import BatchingConfig
from cluster.observability.metrics import make_metrics
from cluster.protocols.envelope import Call, Reply
from cluster.routing.table import RoutingTable, VariantFacts, VariantRoute
from cluster.tensors import Array, Signature, TensorSpec, bytes_array, tensor

Compute = Callable[[dict[str, Array]], dict[str, Array]]


class Computing:
    """A transport whose far end computes at once."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute

    async def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
        return [
            Reply(
                call_id=call.call_id,
                outputs=tuple(
                    tensor(name, array)
                    for name, array in self._compute(
                        {item.name: item.array for item in call.inputs}
                    ).items()
                    if not call.wanted or name in call.wanted
                ),
            )
            for call in calls
        ]


def _sum_and_difference(inputs: dict[str, Array]) -> dict[str, Array]:
    a, b = inputs["INPUT0"], inputs["INPUT1"]
    return {"OUTPUT0": a + b, "OUTPUT1": a - b}


def _louder(inputs: dict[str, Array]) -> dict[str, Array]:
    texts = [item.upper() for item in inputs["text_input"].flat]
    return {"text_output": bytes_array(texts, inputs["text_input"].shape)}


MODELS: dict[str, tuple[Signature, Compute]] = {
    # Triton's example: INT32 [batch, 16] twice; the sum and the difference.
    "simple": (
        Signature(
            inputs=tuple(
                TensorSpec(name=f"INPUT{i}", datatype="INT32", shape=(-1, 16)) for i in (0, 1)
            ),
            outputs=tuple(
                TensorSpec(name=f"OUTPUT{i}", datatype="INT32", shape=(-1, 16)) for i in (0, 1)
            ),
        ),
        _sum_and_difference,
    ),
    "simple_identity": (
        Signature(
            inputs=(TensorSpec(name="INPUT0", datatype="BYTES", shape=(-1, -1)),),
            outputs=(TensorSpec(name="OUTPUT0", datatype="BYTES", shape=(-1, -1)),),
        ),
        lambda inputs: {"OUTPUT0": inputs["INPUT0"]},
    ),
    "shout": (
        Signature(
            inputs=(TensorSpec(name="text_input", datatype="BYTES", shape=(-1, 1)),),
            outputs=(TensorSpec(name="text_output", datatype="BYTES", shape=(-1, 1)),),
        ),
        _louder,
    ),
}


MADE = {"simple": ("fp32", "added"), "shout": ("fp32", "onnxruntime-fp32-slim: simplified")}
"""What the cards say of precision and recipe, where there are any."""


def _route(name: str) -> VariantRoute:
    facts = VariantFacts(
        version="1",
        platform="python",
        backend="python",
        signature=MODELS[name][0],
        is_batched=True,
        made=MADE.get(name, ("", "")),
    )
    return VariantRoute(
        name=name,
        deployment=name,
        facts=facts,
        batching=BatchingConfig(),
        num_replicas=1,
        is_optional=False,
        state="READY",
    )


def simple_body(rows: int = 1, **more: Any) -> bytes:
    """A JSON request for `simple`: INPUT0 counts from 0, INPUT1 is all ones."""
    tensors = {"INPUT0": list(range(16)) * rows, "INPUT1": [1] * 16 * rows}
    inputs = [
        {"name": name, "datatype": "INT32", "shape": [rows, 16], "data": data}
        for name, data in tensors.items()
    ]
    return orjson.dumps({"inputs": inputs, **more})


SUM = [i + 1 for i in range(16)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The routes and what is behind them; `ask` is one HTTP request without a socket."""

    front: FrontDoor
    offered: Offered
    routes: HttpRoutes

    async def ask(
        self,
        method: str,
        path: str,
        body: object = b"",
        *,
        is_local: bool = True,
        **headers: str,
    ) -> HttpReply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = body if isinstance(body, bytes) else orjson.dumps(body)
        request = HttpRequest(
            method=method,
            path=path,
            headers={"host": "localhost:8000", **named},
            body=sent,
            is_local=is_local,
        )
        reply = await self.routes.answer(request)
        if isinstance(reply, HttpReply):
            return reply
        parts = [part async for part in reply.parts]
        return HttpReply(
            status=reply.status,
            chunks=tuple(parts),
            content_type=reply.content_type,
            headers=reply.headers,
        )

    async def json(self, method: str, path: str, body: object = b"", **headers: str) -> Any:
        reply = await self.ask(method, path, body, **headers)
        assert reply.status == 200, body_of(reply)
        return orjson.loads(body_of(reply))

    async def refusal(
        self, method: str, path: str, body: object = b"", *, is_local: bool = True, **headers: str
    ) -> tuple[int, str]:
        """Status and text of an error."""
        reply = await self.ask(method, path, body, is_local=is_local, **headers)
        return reply.status, orjson.loads(body_of(reply))["error"]


def body_of(reply: HttpReply) -> bytes:
    return b"".join(bytes(chunk) for chunk in reply.chunks)


def make_door(folder: Path, *, transport: Transport | None = None, **server: Any) -> Door:
    """A door with the models above, or with `transport` before all of them. Call it on a running
    loop."""
    front = FrontDoor(
        ServerConfig.model_validate(server),
        RoutingTable(version=1, routes={name: _route(name) for name in MODELS}),
        make_transport=lambda route: transport or Computing(MODELS[route.deployment][1]),
        metrics=make_metrics(folder / "metrics"),
    )
    offered = make_offered(front, folder / "metrics")
    return Door(front=front, offered=offered, routes=HttpRoutes(front, offered, app="test"))


@asynccontextmanager
async def grpc_listening(
    folder: Path, *, transport: Transport | None = None, **server: Any
) -> AsyncIterator[tuple[Door, int]]:
    """The same behind a real gRPC listener, and its port."""
    door = make_door(folder, transport=transport, **server)
    with claim_port("127.0.0.1", 0, key="k", folder=folder) as claim:
        listener = GrpcListener(door.front, door.offered)
        await listener.start(claim)
        try:
            yield door, claim.port
        finally:
            await listener.drain(0.1)


@asynccontextmanager
async def grpc_door(
    folder: Path, *, transport: Transport | None = None, **server: Any
) -> AsyncIterator[tuple[Door, grpc.aio.Channel]]:
    """The same, and a channel to it."""
    async with (
        grpc_listening(folder, transport=transport, **server) as (door, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield door, channel


def numbers(rows: int = 1) -> Array:
    return np.tile(np.arange(16, dtype=np.int32), (rows, 1))
