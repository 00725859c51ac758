"""Every caller at every route and RPC, over real sockets.

What there is comes from the door's own tables and the services' descriptors; who may use it is
written here by hand. A route that nobody has put into a row here fails the first test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import orjson
import pytest

from actors.access.callers import callers_of
from cluster.protocols.grpc_schema import (
    HEALTH_METHODS,
    HEALTH_SERVICE,
    METHODS,
    POOL,
    REFLECTION_SERVICES,
    SERVICE,
    message_class,
)
from tests.actors.access.keyed import Listening, bearer, keyed_door, listening
from tests.actors.listeners.doors import simple_body

KNOWN = frozenset({"own", "other", "every", "scraper", "admin"})
STRANGERS: Mapping[str, Mapping[str, str]] = {
    "no key": {},
    "not a key": {"authorization": "Bearer sqn_0123456789ab_guess"},
    "wrong secret": {"authorization": f"{bearer('admin')['authorization']}x"},
    "wrong scheme": {"authorization": bearer("admin")["authorization"].replace("Bearer", "Basic")},
    "expired": bearer("expired"),
}
CALLERS = {**STRANGERS, **{name: bearer(name) for name in sorted(KNOWN)}}

MODEL = "/v2/models/{model}"
OF_MODEL = frozenset({"own", "every", "admin"})
HTTP: dict[frozenset[str], str] = {
    frozenset(CALLERS): """
        GET /v2/health/live
        GET /v2/health/ready
        GET /health
        GET /ping
        GET /-/healthz
        GET /-/routes
        GET /ui
        GET /ui/console.css
        GET /ui/console.js
    """,
    KNOWN: """
        GET /
        GET /v2
        GET /version
        GET /load
        GET /openapi.json
        GET /v1/models
        POST /v2/repository/index
    """,
    frozenset({"scraper", "admin"}): "GET /metrics",
    frozenset({"every", "admin"}): "GET /v2/models/stats",
    # The requests below name a model that `other`'s key is not for.
    OF_MODEL: """
        GET /v2/models/{model}
        GET /v2/models/{model}/ready
        GET /v2/models/{model}/config
        GET /v2/models/{model}/stats
        POST /v2/models/{model}/infer
        POST /v2/models/{model}/generate
        POST /v2/models/{model}/generate_stream
        GET /v1/models/{name}
        POST /v1/chat/completions
        POST /v1/completions
        POST /v1/responses
        POST /v1/embeddings
        POST /v1/score
        POST /v1/rerank
        POST /v2/rerank
        POST /score
        POST /rerank
        POST /tokenize
        POST /detokenize
        POST /admin/v1/experiments/{name}/feedback
    """,
    frozenset({"admin"}): """
        GET /v2/trace/setting
        POST /v2/trace/setting
        GET /v2/models/{model}/trace/setting
        POST /v2/models/{model}/trace/setting
        GET /v2/logging
        POST /v2/logging
        POST /v2/repository/{name}/index
        POST /v2/repository/models/{model}/load
        POST /v2/repository/models/{model}/unload
        POST /v2/repository/{name}/models/{model}/load
        POST /v2/repository/{name}/models/{model}/unload
        GET /v2/systemsharedmemory/status
        GET /v2/systemsharedmemory/region/{name}/status
        POST /v2/systemsharedmemory/region/{name}/register
        POST /v2/systemsharedmemory/region/{name}/unregister
        POST /v2/systemsharedmemory/unregister
        GET /v2/cudasharedmemory/status
        GET /v2/cudasharedmemory/region/{name}/status
        POST /v2/cudasharedmemory/region/{name}/register
        POST /v2/cudasharedmemory/region/{name}/unregister
        POST /v2/cudasharedmemory/unregister
        GET /admin/v1/models
        GET /admin/v1/variants
        GET /admin/v1/ensembles
        GET /admin/v1/traffic
        GET /admin/v1/experiments
        GET /admin/v1/experiments/{name}
        PUT /admin/v1/experiments/{name}/weights
        DELETE /admin/v1/experiments/{name}/weights
        GET /admin/v1/autoscaling
        GET /admin/v1/cluster
        GET /admin/v1/events
        GET /admin/v1/jobs
        POST /admin/v1/jobs
        GET /admin/v1/jobs/{name}
        DELETE /admin/v1/jobs/{name}
        POST /admin/v1/jobs/{name}/store
    """,
}
MAY = {
    tuple(line.split()): allowed
    for allowed, lines in HTTP.items()
    for line in lines.splitlines()
    if line.strip()
}
MAY_CALL: dict[str, frozenset[str]] = {
    **dict.fromkeys(("ServerLive", "ServerReady", "Check", "Watch"), frozenset(CALLERS)),
    **dict.fromkeys(("ServerMetadata", "RepositoryIndex", "ServerReflectionInfo"), KNOWN),
    **dict.fromkeys(("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"), OF_MODEL),
    **dict.fromkeys(("ModelInfer", "ModelStreamInfer"), OF_MODEL),
    **dict.fromkeys(
        (
            "RepositoryModelLoad",
            "RepositoryModelUnload",
            "TraceSetting",
            "LogSettings",
            "SystemSharedMemoryStatus",
            "SystemSharedMemoryRegister",
            "SystemSharedMemoryUnregister",
            "CudaSharedMemoryStatus",
            "CudaSharedMemoryRegister",
            "CudaSharedMemoryUnregister",
        ),
        frozenset({"admin"}),
    ),
}
NAMES = {"model": "simple", "version": "1"}
TIMEOUT_S = 30
BODIES: dict[str, object] = {
    "/v2/models/{model}/infer": orjson.loads(simple_body()),
    "/v1/chat/completions": {"model": "lm", "messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": {"model": "lm", "prompt": "a"},
    "/v1/responses": {"model": "lm", "input": "a"},
    "/tokenize": {"model": "lm", "prompt": "a"},
    "/detokenize": {"model": "lm", "tokens": [1]},
    "/v1/embeddings": {"model": "embedder", "input": "a"},
    **{
        path: {"model": "embedder", "text_1": "a", "text_2": "b"}
        for path in ("/score", "/v1/score")
    },
    **{
        path: {"model": "embedder", "query": "a", "documents": ["b"]}
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    },
}


def operations(door: Listening) -> list[tuple[str, str]]:
    return [(each.method, each.path) for each in door.door.routes.table.operations()]


def without_version(path: str) -> str:
    return path.replace("/versions/{version}", "")


def filled(path: str) -> str:
    name = "simple" if path == "/v1/models/{name}" else "exp"
    return path.format(**NAMES, name=name)


def rpcs() -> list[tuple[str, str, Any]]:
    found = [(SERVICE, name, method) for name, method in METHODS.items()]
    found += [(HEALTH_SERVICE, name, method) for name, method in HEALTH_METHODS.items()]
    reflection = next(iter(POOL.FindServiceByName(REFLECTION_SERVICES[0]).methods))
    found += [(service, reflection.name, None) for service in REFLECTION_SERVICES]
    return found


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Listening]:
    async with listening(tmp_path) as found:
        yield found


async def test_every_route_and_every_rpc_has_its_row(door: Listening) -> None:
    there = {(method, without_version(path)) for method, path in operations(door)}

    assert there == set(MAY)
    assert {name for _, name, _ in rpcs()} == set(MAY_CALL)


async def test_every_caller_at_every_route(door: Listening) -> None:
    wrong: list[str] = []
    num_asked = 0
    async with httpx.AsyncClient(base_url=door.http) as client:
        for method, path in operations(door):
            template = without_version(path)
            body = BODIES.get(template, {})
            for name, headers in CALLERS.items():
                sent = None if method == "GET" else body
                reply = await client.request(method, filled(path), json=sent, headers=headers)
                num_asked += 1
                expected = 401 if name in STRANGERS else 403
                is_refused = reply.status_code in (401, 403, 429)
                may = name in MAY[method, template]
                if is_refused == may or (not may and reply.status_code != expected):
                    wrong.append(f"{method} {path} for {name}: {reply.status_code} {reply.text}")

    assert wrong == []
    assert num_asked == len(operations(door)) * len(CALLERS) > 500


async def test_every_caller_at_every_rpc(door: Listening) -> None:
    assert await asyncio.to_thread(wrongly_answered, door.grpc) == []


def wrongly_answered(address: str) -> list[str]:
    """Asked with gRPC's synchronous client: the asyncio one puts a write that came too late in
    place of the status with which the server ended the stream (grpc/grpc#36066)."""
    status = grpc.StatusCode
    wrong: list[str] = []
    with grpc.insecure_channel(address) as channel:
        for service, name, method in rpcs():
            for caller, headers in CALLERS.items():
                code = called(channel, service, name, method, headers)
                expected = (
                    status.UNAUTHENTICATED if caller in STRANGERS else status.PERMISSION_DENIED
                )
                is_refused = code in (status.UNAUTHENTICATED, status.PERMISSION_DENIED)
                may = caller in MAY_CALL[name]
                if is_refused == may or (not may and code is not expected):
                    wrong.append(f"{service}/{name} for {caller}: {code}")
    return wrong


def called(
    channel: grpc.Channel, service: str, name: str, method: Any, headers: Mapping[str, str]
) -> grpc.StatusCode:
    """The status of one call; of a stream of responses, the first one's."""
    metadata = (*headers.items(), ("triton_grpc_error", "true"))
    path = f"/{service}/{name}"
    data = b""
    if name in ("ModelInfer", "ModelStreamInfer"):
        data = infer_request()
    elif method is not None and "name" in method.request.DESCRIPTOR.fields_by_name:
        data = method.request(name="simple").SerializeToString()
    elif method is not None and "model_name" in method.request.DESCRIPTOR.fields_by_name:
        data = method.request(model_name="simple").SerializeToString()
    try:
        if name == "Watch":
            watch = channel.unary_stream(path)(data, metadata=metadata, timeout=TIMEOUT_S)
            next(watch)
            watch.cancel()
        elif method is None or method.client_streaming:
            next(channel.stream_stream(path)(iter([data]), metadata=metadata, timeout=TIMEOUT_S))
        else:
            channel.unary_unary(path)(data, metadata=metadata, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def infer_request() -> bytes:
    inputs = [
        {
            "name": name,
            "datatype": "INT32",
            "shape": [1, 16],
            "contents": {"int_contents": [1] * 16},
        }
        for name in ("INPUT0", "INPUT1")
    ]
    request = message_class("inference.ModelInferRequest")(model_name="simple", inputs=inputs)
    encoded: bytes = request.SerializeToString()
    return encoded


async def test_the_metrics_port_asks_for_a_key_as_well(door: Listening) -> None:
    async with httpx.AsyncClient() as client:
        found = {
            name: (await client.get(door.metrics, headers=headers)).status_code
            for name, headers in CALLERS.items()
        }

    assert {name for name, code in found.items() if code == 200} == {"scraper", "admin"}
    assert {name for name, code in found.items() if code == 401} == set(STRANGERS)


async def test_who_may_is_the_same_where_it_is_asked_from_afar(tmp_path: Path) -> None:
    """Loopback is no key, and a key needs no loopback."""
    door = keyed_door(tmp_path)

    async def status(name: str, method: str, path: str, *, is_local: bool) -> int:
        body = b"" if method == "GET" else b"{}"
        reply = await door.ask(method, path, body, is_local=is_local, **dict(CALLERS[name]))
        return reply.status

    for (method, template), allowed in MAY.items():
        for name in CALLERS:
            near, far = [
                await status(name, method, filled(template), is_local=is_local)
                for is_local in (True, False)
            ]
            assert near == far, (method, template, name)
            if name not in allowed and name in STRANGERS:
                assert far == 401, (method, template, name)


async def test_a_door_without_keys_has_nothing_of_this(tmp_path: Path) -> None:
    door = keyed_door(tmp_path, ())

    assert callers_of(door.front.server, tmp_path) is None
    assert door.front.callers is None
    assert type(door.front).__name__ == "FrontDoor"
    assert type(door.routes).__name__ == "HttpRoutes"
    assert (await door.ask("GET", "/v2")).status == 200
