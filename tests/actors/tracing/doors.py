"""A traced door before a traced replica, both over real listeners in this process, without Ray."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from actors.delivery.withdrawals import Withdrawals
from actors.extensions.offered import make_offered
from actors.front_door import FrontDoor
from actors.listeners.grpc.listener import GrpcListener
from actors.listeners.http import HttpListener
from actors.listeners.http_routes import HttpRoutes
from actors.listeners.port_claim import claim_port
from actors.logs.notes import follows_of, noted
from actors.model_replica import ModelReplica, ReplicaSetup
from actors.tracing.opened import door_spans, tracer_of
from cluster.config.server import ServerConfig
from cluster.config.squadron import SquadronConfig
from cluster.config.variant import BatchingConfig
from cluster.engines.engine import Engine, EngineSetup
from cluster.engines.fake import FakeEngine
from cluster.observability.metrics import make_metrics
from cluster.protocols.envelope import Call, Reply, decode_calls, decode_replies, encode_calls
from cluster.routing.table import RoutingTable, VariantFacts, VariantRoute, build_table
from cluster.tensors import Array
from tests.contracts.tiny_models import card

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


class Gated(FakeEngine):
    """y = 2 * x + 1, when the gate is open. `began` is set when a batch waits before it."""

    def __init__(self, setup: EngineSetup) -> None:
        super().__init__(setup)
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.fails = False

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        self.began.set()
        assert self.gate.wait(20)
        if self.fails:
            raise ZeroDivisionError("not for callers")
        return super().infer(inputs)


class Encoded:
    """To a replica as over a socket: what is not in the envelope does not arrive."""

    def __init__(self, replica: ModelReplica, seen: list[Call]) -> None:
        self._replica = replica
        self._seen = seen

    async def send(self, calls: list[Call], withdrawals: Withdrawals) -> list[Reply]:
        message = encode_calls(calls)
        self._seen += decode_calls(message)
        return decode_replies(await self._replica.infer(message, withdrawals))


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """`sent`: every call that left the door."""

    http: str
    grpc: str
    front: FrontDoor
    engine: Gated
    replica: ModelReplica
    sent: list[Call]


@asynccontextmanager
async def traced_door(
    folder: Path, *, engine: Engine | None = None, **server: Any
) -> AsyncIterator[Traced]:
    """Model `v`: fake engine unless another one is given, batches of at most 8. `both`: an
    ensemble of `v` and then `w`; `mirrored`: an experiment with `v`, copied to `w`. The same
    replica answers for `w`."""
    config = ServerConfig.model_validate(server)
    batching = BatchingConfig.model_validate({"max_batch_size": 8})
    setup = ReplicaSetup(
        variant="v",
        card=card(),
        folder=folder,
        engine="fake",
        device="cpu",
        threads=1,
        is_processed=True,
        batching=batching,
        tracing=config.tracing,
    )
    gated = Gated(EngineSetup(card=setup.card, folder=folder))
    gated.load()
    made = engine or gated
    replica = ModelReplica(setup, metrics_at=folder / "metrics", make_ready=lambda _: made)
    replica._is_inline = False  # through the queue, as larger models are
    tracer = tracer_of(config.tracing, role="door")
    spans = door_spans(tracer, config.tracing)
    sent: list[Call] = []
    transport: Any = Encoded(replica, sent)
    front = FrontDoor(
        config,
        _table(setup),
        make_transport=lambda _: transport if spans is None else spans.transport(transport),
        metrics=make_metrics(folder / "metrics"),
    )
    front.follows = follows_of(spans, config.logging)
    offered = make_offered(front, folder / "metrics")
    http = HttpListener(noted(HttpRoutes(front, offered, app="t"), config.logging), config.limits)
    rpc = GrpcListener(front, offered)
    (folder / "grpc").mkdir()
    with (
        claim_port("127.0.0.1", 0, key="k", folder=folder) as one,
        claim_port("127.0.0.1", 0, key="k", folder=folder / "grpc") as other,
    ):
        await http.start(one, folder)
        await rpc.start(other)
        try:
            yield Traced(
                http=f"http://127.0.0.1:{one.port}",
                grpc=f"127.0.0.1:{other.port}",
                front=front,
                engine=gated,
                replica=replica,
                sent=sent,
            )
        finally:
            gated.gate.set()
            await http.drain(1)
            await rpc.drain(1)
            await replica.close()
            if tracer is not None:
                tracer.close()


def body(**more: Any) -> bytes:
    return orjson.dumps({**BODY, **more})


def _table(setup: ReplicaSetup) -> RoutingTable:
    told = setup.card.model_dump(mode="json", exclude_none=True)
    steps = [
        {"model": "v", "inputs": {"x": "x"}, "outputs": {"y": "once"}},
        {"model": "w", "inputs": {"x": "once"}, "outputs": {"y": "y"}},
    ]
    config = SquadronConfig.model_validate(
        {
            "variants": {"v": {"card": told}, "w": {"card": told}},
            "ensembles": {"both": {"inputs": ["x"], "outputs": ["y"], "steps": steps}},
            "experiments": {"mirrored": {"split": {"v": 1}, "mirror": {"variants": ["w"]}}},
        }
    )
    facts = VariantFacts(
        version="1",
        platform="fake",
        backend="fake",
        signature=setup.card.public_signature(),
        is_batched=True,
    )
    table = build_table(config, {"v": facts, "w": facts})
    ready = {
        name: replace(route, state="READY", num_replicas=1, batching=setup.batching)
        if isinstance(route, VariantRoute)
        else route
        for name, route in table.routes.items()
    }
    return replace(table, routes=ready)
