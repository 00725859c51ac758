"""APIs behind a key, a base path and the load that balancers ask for: HTTP and gRPC without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from actors.listeners.restrict import group_of_path, group_of_rpc
from cluster.config.server import ServerConfig
from cluster.protocols import v2_grpc
from cluster.protocols.extensions.load_report import LoadReport, encode_load
from cluster.protocols.grpc_schema import HEALTH_SERVICE, SERVICE, message_class
from tests.actors.listeners.doors import SUM, grpc_door, make_door, simple_body

CLOSED = [
    {"apis": ["inference"], "header": "infer-key", "value": "secret"},
    {"apis": ["model-repository", "health"], "header": "admin-key", "value": "other"},
]
TOLD = "This API is restricted, expecting header '{}'"
INFER = "/v2/models/simple/infer"


async def test_a_closed_api_wants_its_own_key(tmp_path: Path) -> None:
    door = make_door(tmp_path, restricted=CLOSED)

    for headers in ({}, {"infer_key": "secre"}, {"admin_key": "secret"}, {"infer_key": "é"}):
        told = await door.refusal("POST", INFER, simple_body(), **headers)
        assert told == (403, TOLD.format("infer-key"))
    answer = await door.json("POST", INFER, simple_body(), infer_key="secret")

    assert answer["outputs"][0]["data"] == SUM
    assert await door.refusal("GET", "/v2/health/ready") == (403, TOLD.format("admin-key"))
    assert await door.refusal("POST", "/v2/repository/index") == (403, TOLD.format("admin-key"))
    assert (await door.json("GET", "/v2"))["name"] == "squadron"


async def test_the_way_without_a_task_is_closed_too(tmp_path: Path) -> None:
    from actors.listeners.http_messages import HttpRequest

    def began(**server: Any) -> Callable[[], None] | None:
        door = make_door(tmp_path, **server)
        request = HttpRequest(method="POST", path=INFER, headers={}, body=simple_body())
        door.routes._place(INFER)
        return door.routes.begin(request, lambda reply: None)

    give_up = began()
    assert give_up is not None
    give_up()
    assert began(restricted=CLOSED) is None


def request(method: str, **fields: Any) -> bytes:
    encoded: bytes = message_class(f"inference.{method}Request")(**fields).SerializeToString()
    return encoded


async def test_a_closed_rpc_wants_its_own_key(tmp_path: Path) -> None:
    async with grpc_door(tmp_path, restricted=CLOSED) as (_, channel):

        async def ask(method: str, key: str = "", service: str = SERVICE) -> bytes:
            metadata = ((f"triton-grpc-protocol-{key}", "other"),) if key else ()
            data = b"" if service == HEALTH_SERVICE else request(method)
            answer: bytes = await channel.unary_unary(f"/{service}/{method}")(
                data, metadata=metadata
            )
            return answer

        for method, service in (
            ("ServerLive", SERVICE),
            ("RepositoryIndex", SERVICE),
            ("Check", HEALTH_SERVICE),
        ):
            for key in ("", "infer-key"):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await ask(method, key, service)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert refused.value.details() == (
                    "This protocol is restricted, expecting header 'triton-grpc-protocol-admin-key'"
                )
            assert await ask(method, "admin-key", service)
        assert await ask("ServerMetadata")
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            # Nothing is written: a write that comes too late hides the status (grpc/grpc#36066).
            await stream([]).read()
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_every_rpc_and_every_route_of_the_protocol_has_a_group(tmp_path: Path) -> None:
    assert all(group_of_rpc(name) is not None for name in v2_grpc.METHODS)


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/v2", "metadata"),
        ("/v2/models/{model}", "metadata"),
        ("/v2/models/{model}/versions/{version}", "metadata"),
        ("/v2/models/{model}/versions/{version}/ready", "health"),
        ("/v2/health/live", "health"),
        ("/v2/models/{model}/versions/{version}/generate_stream", "inference"),
        ("/v2/models/{model}/config", "model-config"),
        ("/v2/models/stats", "statistics"),
        ("/v2/repository/models/{model}/load", "model-repository"),
        ("/v2/systemsharedmemory/region/{name}/register", "shared-memory"),
        ("/v2/cudasharedmemory/status", "shared-memory"),
        ("/v2/models/{model}/trace/setting", "trace"),
        ("/v2/logging", "logging"),
        ("/v1/chat/completions", "inference"),
        ("/v1/embeddings", "inference"),
        ("/v2/rerank", "inference"),
        ("/tokenize", "inference"),
        ("/v1/models", "metadata"),
        ("/health", "health"),
        ("/-/healthz", None),
        ("/metrics", None),
    ],
)
def test_a_path_is_of_one_group(path: str, group: str | None) -> None:
    assert group_of_path(path) == group


def test_an_api_has_one_key_and_the_key_is_not_shown() -> None:
    twice = {"apis": ["health"], "header": "k", "value": "topsecret"}

    with pytest.raises(ValueError, match="restricted names health more than once"):
        ServerConfig.model_validate({"restricted": [twice, twice]})
    assert "topsecret" not in repr(ServerConfig.model_validate({"restricted": [twice]}))


async def test_a_base_path_begins_every_path_but_the_probes(tmp_path: Path) -> None:
    door = make_door(tmp_path, base_path="/models/triton")

    assert (await door.json("POST", f"/models/triton{INFER}", simple_body()))["outputs"]
    assert (await door.json("GET", "/models/triton/v2/"))["name"] == "squadron"
    for path in ("/v2", "/models/tritonv2", INFER):
        assert await door.refusal("GET", path) == (404, "Not Found")
    assert (await door.ask("GET", "/-/healthz")).status == 200
    paths = (await door.json("GET", "/models/triton/openapi.json"))["paths"]
    assert "/models/triton/v2/health/live" in paths
    assert "/metrics" in paths


async def test_the_load_is_told_to_who_asks_for_it(tmp_path: Path) -> None:
    door = make_door(tmp_path)

    async def told(form: str) -> str | None:
        reply = await door.ask("POST", INFER, simple_body(), endpoint_load_metrics_format=form)
        assert reply.status == 200
        return dict(reply.headers).get("endpoint-load-metrics")

    content = json.loads((await told("json") or "").removeprefix("JSON "))
    assert content["application_utilization"] == 0.0
    assert content["named_metrics"] == {"requests_in_flight": 0, "rows_waiting": 0}
    assert (await told("text") or "").startswith("TEXT application_utilization=0.0, named_metrics.")
    assert await told("xml") is None
    assert "endpoint-load-metrics" not in dict(
        (await door.ask("POST", INFER, simple_body())).headers
    )


@pytest.mark.parametrize("path", ["/v1/models", "/version", "/v2"])
async def test_the_load_is_told_where_no_model_is_named_in_the_path(
    tmp_path: Path, path: str
) -> None:
    reply = await make_door(tmp_path).ask("GET", path, endpoint_load_metrics_format="json")

    assert reply.status == 200
    assert "requests_in_flight" in dict(reply.headers)["endpoint-load-metrics"]


async def test_the_load_is_what_vllm_calls_it(tmp_path: Path) -> None:
    assert await make_door(tmp_path).json("GET", "/load") == {"server_load": 0}


def test_a_load_report_counts_waiting_rows_beyond_one() -> None:
    report = LoadReport(utilization=1.25, requests_in_flight=9, rows_waiting=4)

    assert encode_load(report, " TEXT ") == (
        "TEXT application_utilization=1.25, named_metrics.requests_in_flight=9, "
        "named_metrics.rows_waiting=4"
    )
