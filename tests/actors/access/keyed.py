"""Doors behind API keys, on real sockets and without Ray: the models of `listeners.doors`, a
language model and an embedding one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson

from actors.access.callers import callers_of
from actors.access.opened import opened_by
from actors.access.tls import ServerTls
from actors.extensions.offered import make_offered
from actors.listeners.grpc.listener import GrpcListener
from actors.listeners.http import HttpListener
from actors.listeners.metrics import MetricsListener
from actors.listeners.port_claim import PortClaim, claim_port
from actors.logs.notes import follows_of, noted
from cluster.access.keys import digest_of, key_of
from cluster.config.security.api_keys import ApiKey, KeysFile
from cluster.config.server import ListenerConfig, ServerConfig
from cluster.config.variant import BatchingConfig
from cluster.errors import InvalidRequest
from cluster.observability.metrics import make_metrics
from cluster.protocols.envelope import Call, Reply
from cluster.protocols.openai.parameters import COUNT_TOKENS, COUNTED
from cluster.routing.table import RoutingTable, VariantFacts, VariantRoute
from cluster.tensors import Signature, TensorSpec, bytes_array, tensor
from tests.actors.listeners.doors import MODELS, Computing, Door, _route

PORTS = ("port-http", "port-grpc", "port-metrics")
PROMPT_TOKENS, ANSWER_TOKENS = 7, 5
"""What the language model here says it used for its first piece, whatever it was asked."""


def key(name: str) -> str:
    """A key whose id and secret follow from its name."""
    return key_of(digest_of(name)[:12], f"secret-of-{name}")


def entry(name: str, *scopes: str, **more: Any) -> ApiKey:
    return ApiKey(
        id=digest_of(name)[:12], name=name, sha256=digest_of(key(name)), scopes=scopes, **more
    )


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key(name)}"}


YESTERDAY = datetime.now(UTC) - timedelta(days=1)
OWN = ("infer:simple", "infer:lm", "infer:embedder", "infer:exp")
ENTRIES = (
    entry("own", *OWN),
    entry("other", "infer:shout"),
    entry("every", "infer"),
    entry("scraper", "metrics"),
    entry("admin", "admin"),
    entry("expired", "admin", expires=YESTERDAY),
)


def write_keys(file: Path, *entries: ApiKey) -> None:
    """As `squadron keys` does: whole or not at all."""
    fresh = file.with_suffix(".new")
    content = KeysFile(keys=entries).model_dump(mode="json", exclude_none=True)
    fresh.write_bytes(orjson.dumps(content))
    fresh.replace(file)


class Speaking:
    """A language model's transport: two pieces, each with what was used so far for who asked; one
    where OpenAI's endpoints are not asked for a stream."""

    def __init__(self, route: VariantRoute) -> None:
        del route

    async def stream(self, call: Call) -> AsyncGenerator[Reply, None]:
        if call.parameters.get("fail"):
            raise InvalidRequest("as it was asked to")
        given = bytes(call.inputs[0].array.item())
        is_whole = given.startswith(b"{") and not orjson.loads(given).get("stream")
        for number, piece in enumerate((b"a",) if is_whole else (b"a", b"b")):
            outputs = [tensor("text_output", bytes_array([piece], (1,)))]
            if COUNT_TOKENS in call.parameters:
                counts = np.array([PROMPT_TOKENS, ANSWER_TOKENS + number], np.int64)
                outputs.append(tensor(COUNTED, counts))
            yield Reply(call_id=call.call_id, outputs=tuple(outputs))


def _text_route(name: str, *, is_language: bool) -> VariantRoute:
    given = "text_input" if is_language else "text"
    output = TensorSpec(name="embedding", datatype="FP32", shape=(-1, 2))
    if is_language:
        output = TensorSpec(name="text_output", datatype="BYTES", shape=(1,))
    shape = (1,) if is_language else (-1,)
    facts = VariantFacts(
        version="1",
        platform="python",
        backend="python",
        signature=Signature(
            inputs=(TensorSpec(name=given, datatype="BYTES", shape=shape),), outputs=(output,)
        ),
        is_batched=not is_language,
        is_decoupled=is_language,
        is_language=is_language,
        max_model_len=1000,
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


def _transport(route: VariantRoute) -> Computing:
    if route.deployment in MODELS:
        return Computing(MODELS[route.deployment][1])
    return Computing(lambda inputs: {"embedding": np.ones((len(inputs["text"]), 2), np.float32)})


def keyed_door(folder: Path, entries: Sequence[ApiKey] = ENTRIES, **server: Any) -> Door:
    """Call it on a running loop. The file is `folder/keys.json`; without entries there are no
    keys at all."""
    folder.mkdir(exist_ok=True)
    if entries:
        write_keys(folder / "keys.json", *entries)
        server["api_keys"] = str(folder / "keys.json")
    config = ServerConfig.model_validate(server)
    make_door, make_routes = opened_by(callers_of(config, folder, look_every_s=0))
    routes = {name: _route(name) for name in MODELS}
    routes["lm"] = _text_route("lm", is_language=True)
    routes["embedder"] = _text_route("embedder", is_language=False)
    front = make_door(
        config,
        RoutingTable(version=1, routes=routes),
        make_transport=_transport,
        metrics=make_metrics(folder / "metrics"),
        make_streams=Speaking,
    )
    front.follows = follows_of(None, config.logging)
    offered = make_offered(front, folder / "metrics")
    return Door(front=front, offered=offered, routes=make_routes(front, offered, app="test"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """A door and its three ports."""

    door: Door
    http: str
    grpc: str
    metrics: str


@asynccontextmanager
async def listening(
    folder: Path, entries: Sequence[ApiKey] = ENTRIES, **server: Any
) -> AsyncIterator[Listening]:
    door = keyed_door(folder, entries, **server)
    limits = door.front.server.limits
    with ExitStack() as claims:
        http, rpc, free = (claims.enter_context(_claim(folder / name)) for name in PORTS)
        free.release()
        config = door.front.server.tls
        tls = ServerTls(config) if config is not None else None
        context = tls.context if tls is not None else None
        routes = noted(door.routes, door.front.server.logging)
        http_listener = HttpListener(routes, limits, context)
        grpc_listener = GrpcListener(door.front, door.offered)
        port = ListenerConfig(port=free.port)
        metrics = MetricsListener(door.routes, port, limits, folder, context)
        await http_listener.start(http, folder)
        await grpc_listener.start(rpc, tls.credentials() if tls is not None else None)
        await metrics.start()
        scheme = "http" if tls is None else "https"
        try:
            yield Listening(
                door=door,
                http=f"{scheme}://127.0.0.1:{http.port}",
                grpc=f"127.0.0.1:{rpc.port}",
                metrics=f"{scheme}://127.0.0.1:{free.port}/metrics",
            )
        finally:
            await http_listener.drain(0.1)
            await grpc_listener.drain(0.1)
            await metrics.close()


def _claim(folder: Path) -> PortClaim:
    """Of a folder of its own: whoever asks for port 0 of the same one is a sister."""
    folder.mkdir()
    return claim_port("127.0.0.1", 0, key="k", folder=folder)


@asynccontextmanager
async def channel_to(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
