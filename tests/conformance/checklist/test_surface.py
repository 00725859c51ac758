"""Protocol sections 5.1, 5.2, 5.3, 5.8 and 5.9: every route and every RPC of a live server."""

from __future__ import annotations

import json
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from cluster.protocols.grpc_schema import message_class
from tests.conformance.checklist.conftest import Checked

pytestmark = [pytest.mark.e2e]
MODEL = "/v2/models/simple"
GROUPS = {
    "classification", "sequence", "model_repository", "model_repository(unload_dependents)",
    "schedule_policy", "model_configuration", "system_shared_memory", "binary_tensor_data",
    "parameters", "statistics", "logging",
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/", 200),
        ("GET", "/v2?test_1=1&test_2=2", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", MODEL, 200),
        ("GET", f"{MODEL}/versions/1", 200),
        ("GET", f"{MODEL}/ready", 200),
        ("GET", f"{MODEL}/versions/1/ready", 200),
        ("GET", f"{MODEL}/config", 200),
        ("GET", f"{MODEL}/versions/1/config", 200),
        ("GET", f"{MODEL}/stats", 200),
        ("GET", f"{MODEL}/versions/1/stats", 200),
        ("GET", "/v2/models/stats", 200),
        ("GET", "/v2/trace/setting", 200),
        ("GET", f"{MODEL}/trace/setting", 200),
        ("POST", "/v2/repository/index", 200),
        ("GET", "/v2/systemsharedmemory/status", 200),
        ("GET", "/v2/cudasharedmemory/status", 200),
        ("GET", "/v2/systemsharedmemory/region/none/status", 404),
        ("POST", "/v2/systemsharedmemory/unregister", 200),
        ("POST", "/v2/systemsharedmemory/region/none/unregister", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/-/healthz", 200),
        ("GET", "/-/routes", 200),
        ("POST", "/v2/repository/mine/index", 501),
        ("POST", "/v2/repository/mine/models/simple/load", 501),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("GET", f"{MODEL}/versions/9", 404),
        ("GET", "/v2/models/none/stats", 404),
        ("GET", "/v3", 404),
        ("GET", f"{MODEL}/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", MODEL, 405),
    ],
)
def test_every_route_answers_with_its_status_and_never_without_a_reason(
    checked: Checked, method: str, path: str, status: int
) -> None:
    answer = checked.http.request(method, path)

    assert answer.status_code == status, answer.text
    if status >= 400:
        assert list(answer.json()) == ["error"]
        assert isinstance(answer.json()["error"], str)
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.slice
def test_the_paths_of_openapi_are_those_that_answer(checked: Checked) -> None:
    document = checked.http.get("/openapi.json").json()

    for path, operations in document["paths"].items():
        concrete = path.replace("{model}", "simple").replace("{version}", "1")
        wrong = checked.http.request("PATCH", concrete.replace("{name}", "none"))
        assert wrong.status_code == 405, path
        assert {m.strip().lower() for m in wrong.headers["allow"].split(",")} == set(operations)


def test_metadata_names_what_works(checked: Checked) -> None:
    told = checked.http.get("/v2").json()

    assert told["name"] == "triton"
    assert set(told["extensions"]) >= GROUPS - {"sequence"}
    assert set(checked.http.get(f"{MODEL}").json()) >= {
        "name", "versions", "platform", "inputs", "outputs",
    }  # fmt: skip
    (tensor,) = checked.http.get("/v2/models/text").json()["inputs"]
    assert tensor == {"name": "x", "datatype": "BYTES", "shape": [-1, -1]}
    config = checked.http.get("/v2/models/text/config").json()
    assert config["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [-1]}]


def test_statistics_have_the_fields_that_perf_analyzer_reads(checked: Checked) -> None:
    body = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]}]}
    (before,) = checked.http.get("/v2/models/text/stats").json()["model_stats"]
    assert checked.http.post("/v2/models/text/infer", json=body).status_code == 200

    (stats,) = checked.http.get("/v2/models/text/stats").json()["model_stats"]

    assert stats["inference_count"] == before["inference_count"] + 2
    assert stats["execution_count"] == before["execution_count"] + 1
    assert stats["last_inference"] > 0
    for key in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        assert set(stats["inference_stats"][key]) == {"count", "ns"}
    assert {"cache_hit", "cache_miss"} <= set(stats["inference_stats"])
    assert 2 in [each["batch_size"] for each in stats["batch_stats"]]
    assert {"batch_stats", "response_stats", "memory_usage"} <= set(stats)


def test_trace_settings_fall_back_to_the_global_ones_and_null_clears(checked: Checked) -> None:
    def change(path: str, **settings: Any) -> dict[str, Any]:
        answer = checked.http.post(path, json=settings)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    assert change("/v2/trace/setting", trace_rate="7")["trace_rate"] == "7"
    own = f"{MODEL}/trace/setting"
    assert checked.http.get(own).json()["trace_rate"] == "7"
    assert change(own, trace_rate="3", trace_level=["TIMESTAMPS"])["trace_rate"] == "3"
    assert checked.http.get("/v2/trace/setting").json()["trace_rate"] == "7"
    assert change(own, trace_rate=None)["trace_rate"] == "7"
    assert isinstance(checked.http.get(own).json()["trace_level"], list)
    change("/v2/trace/setting", trace_rate=None)
    refused = checked.http.post("/v2/trace/setting", json={"trace_file": "/tmp/x"})
    assert refused.status_code == 501
    assert "file location can not be updated through network protocol" in refused.json()["error"]
    assert checked.http.post("/v2/trace/setting", json={"trace_rat": "1"}).status_code == 400


def test_a_restricted_api_wants_its_key(checked: Checked) -> None:
    told = "This API is restricted, expecting header 'log-key'"
    without = checked.http.get("/v2/logging")
    settings = checked.http.get("/v2/logging", headers={"log-key": "open"}).json()

    assert (without.status_code, without.json()) == (403, {"error": told})
    assert set(settings) >= {
        "log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format",
    }  # fmt: skip
    with grpc.insecure_channel(checked.server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.LogSettings(service_pb2.LogSettingsRequest(), timeout=30)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        key = (("triton-grpc-protocol-log-key", "open"),)
        assert stub.LogSettings(service_pb2.LogSettingsRequest(), metadata=key, timeout=30).settings


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/repository/models/simple/load", {}),
        ("/v2/repository/models/simple/unload", {}),
        ("/v2/trace/setting", {"trace_rate": "1"}),
        ("/v2/systemsharedmemory/region/r/register", {"key": "/squadron_x", "byte_size": 4}),
        ("/v2/systemsharedmemory/unregister", {}),
    ],
)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"host": "evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 400),
        ({"content-type": "application/x-www-form-urlencoded"}, 400),
    ],
    ids=["origin", "host", "fetch site", "text", "form"],
)
def test_no_web_page_changes_anything(
    checked: Checked, path: str, body: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    given = {"content-type": "application/json", **headers}
    answer = checked.http.post(path, content=json.dumps(body), headers=given)

    assert answer.status_code == status, answer.text
    by_second_door = httpx.post(
        checked.server.second_door + path, content=json.dumps(body), headers=given, timeout=30
    )
    assert by_second_door.status_code == status, by_second_door.text
    assert checked.http.get(f"{MODEL}/ready").status_code == 200


@pytest.mark.slice
def test_all_twenty_rpcs_answer(checked: Checked) -> None:
    names = [method.name for method in service_pb2.DESCRIPTOR.services_by_name[
        "GRPCInferenceService"
    ].methods]  # fmt: skip
    requests: dict[str, Any] = {
        "ModelReady": {"name": "simple"},
        "ModelMetadata": {"name": "simple"},
        "ModelConfig": {"name": "simple"},
        "ModelStatistics": {"name": "simple"},
        "TraceSetting": {"model_name": "simple"},
        "ModelInfer": {"model_name": "none"},
        "RepositoryModelLoad": {"model_name": "none"},
        "RepositoryModelUnload": {"model_name": "none"},
    }
    good = {
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig",
        "ModelStatistics", "RepositoryIndex", "TraceSetting", "SystemSharedMemoryStatus",
        "SystemSharedMemoryUnregister",
    }  # fmt: skip
    codes: dict[str, str] = {}
    texts: list[str] = []
    with grpc.insecure_channel(checked.server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name in names:
            request = getattr(service_pb2, f"{name.replace('StreamInfer', 'Infer')}Request")
            asked = request(**requests.get(name, {}))
            try:
                if name == "ModelStreamInfer":
                    (answer,) = stub.ModelStreamInfer(iter([asked]), timeout=30)
                    codes[name] = "OK" if answer.error_message else "silent"
                else:
                    getattr(stub, name)(asked, timeout=30)
                    codes[name] = "OK"
            except grpc.RpcError as error:
                codes[name] = error.code().name
                texts.append(error.details() or "")

    assert len(names) == 20
    assert all(text and "Traceback" not in text for text in texts)
    assert {name for name, code in codes.items() if code == "OK"} >= good
    assert codes["ModelStreamInfer"] == "OK"
    assert not {"UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE"} & set(codes.values())
    assert codes["ModelInfer"] == "NOT_FOUND"
    assert codes["CudaSharedMemoryStatus"] in ("UNIMPLEMENTED", "OK")


@pytest.mark.slice
def test_reflection_gives_a_caller_without_our_files_all_it_needs(checked: Checked) -> None:
    """As grpcurl does: list the services, then fetch the file that describes one."""
    ask_type = message_class("grpc.reflection.v1.ServerReflectionRequest")
    answer_type = message_class("grpc.reflection.v1.ServerReflectionResponse")
    with grpc.insecure_channel(checked.server.grpc) as channel:
        for service in ("grpc.reflection.v1", "grpc.reflection.v1alpha"):
            call = channel.stream_stream(
                f"/{service}.ServerReflection/ServerReflectionInfo",
                request_serializer=ask_type.SerializeToString,
                response_deserializer=answer_type.FromString,
            )
            symbol = "inference.GRPCInferenceService"
            listed, described = call(
                iter([ask_type(list_services=""), ask_type(file_containing_symbol=symbol)]),
                timeout=30,
            )
            names = {each.name for each in listed.list_services_response.service}
            assert names >= {symbol, "grpc.health.v1.Health"}
            files = [
                descriptor_pb2.FileDescriptorProto.FromString(raw)
                for raw in described.file_descriptor_response.file_descriptor_proto
            ]
            methods = [m.name for f in files for s in f.service for m in s.method]
            assert "ModelStreamInfer" in methods
            assert len(methods) == 20
