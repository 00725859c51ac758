"""The gRPC listener over a real socket, with the public client's messages."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool
from tritonclient.grpc import service_pb2

from cluster.protocols.grpc_schema import METHODS, REFLECTION_SERVICES, message_class
from tests.actors.listeners.doors import grpc_door, numbers

Asked = message_class("grpc.reflection.v1.ServerReflectionRequest")
Answered = message_class("grpc.reflection.v1.ServerReflectionResponse")
SERVICE = "/inference.GRPCInferenceService/"


def simple_request(**more: object) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="simple", **more)
    for name in ("INPUT0", "INPUT1"):
        request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
        request.raw_input_contents.append(numbers().tobytes())
    return request


async def test_statistics_over_grpc_are_those_of_http(tmp_path: Path) -> None:
    async with grpc_door(tmp_path) as (door, channel):
        await channel.unary_unary(SERVICE + "ModelInfer")(simple_request().SerializeToString())
        asked = service_pb2.ModelStatisticsRequest(name="simple").SerializeToString()
        data = await channel.unary_unary(SERVICE + "ModelStatistics")(asked)
        over_http = await door.json("GET", "/v2/models/simple/stats")

    (found,) = service_pb2.ModelStatisticsResponse.FromString(data).model_stats
    assert (found.name, found.inference_stats.success.count, found.execution_count) == (
        "simple", 1, 1,
    )  # fmt: skip
    assert (
        found.inference_stats.success.ns
        == (over_http["model_stats"][0]["inference_stats"]["success"]["ns"])
    )


async def test_all_twenty_methods_answer(tmp_path: Path) -> None:
    """None is unknown to the server: each gives a message or an error that says what is off."""
    refused = {}
    async with grpc_door(tmp_path) as (_, channel):
        for name, method in METHODS.items():
            if method.server_streaming:
                continue
            try:
                await channel.unary_unary(SERVICE + name)(b"")
            except grpc.aio.AioRpcError as error:
                refused[name] = (error.code().name, error.details())

    off = "explicit model load / unload is not allowed if polling is enabled"
    assert refused["RepositoryModelLoad"] == ("UNAVAILABLE", off)
    assert refused["RepositoryModelUnload"] == ("UNAVAILABLE", off)
    assert not any("Method not found" in str(text) for _, text in refused.values())


async def test_trace_and_log_settings_are_read_and_changed(tmp_path: Path) -> None:
    async with grpc_door(tmp_path) as (_, channel):
        change = service_pb2.TraceSettingRequest(model_name="simple")
        change.settings["trace_rate"].value.append("7")
        data = await channel.unary_unary(SERVICE + "TraceSetting")(change.SerializeToString())
        trace = service_pb2.TraceSettingResponse.FromString(data).settings
        change = service_pb2.LogSettingsRequest()
        change.settings["log_format"].string_param = "ISO8601"
        data = await channel.unary_unary(SERVICE + "LogSettings")(change.SerializeToString())
        log = service_pb2.LogSettingsResponse.FromString(data).settings
        change.settings["log_file"].string_param = "x"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(SERVICE + "LogSettings")(change.SerializeToString())

    assert (trace["trace_rate"].value, trace["trace_level"].value) == (["7"], ["OFF"])
    assert (log["log_format"].string_param, log["log_info"].bool_param) == ("ISO8601", True)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_is_checked_and_watched(tmp_path: Path) -> None:
    async with grpc_door(tmp_path) as (door, channel):
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert await check(b"") == b"\x08\x01"
        assert await check(b"\x0a\x1e" + b"inference.GRPCInferenceService") == b"\x08\x01"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(b"\x0a\x02no")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert await watch.read() == b"\x08\x01"
        door.front.is_draining = True
        assert await watch.read() == b"\x08\x02"
        assert await watch.read() is grpc.aio.EOF


async def test_reflection_describes_every_service_and_message(tmp_path: Path) -> None:
    """What `grpcurl list` and `describe` ask, over both names of the service."""
    async with grpc_door(tmp_path) as (_, channel):
        for service in REFLECTION_SERVICES:
            asked = [
                Asked(list_services="*"),
                Asked(file_containing_symbol="inference.GRPCInferenceService"),
                Asked(file_by_filename="model_config.proto"),
                Asked(file_containing_symbol="no.such"),
            ]
            call = channel.stream_stream(f"/{service}/ServerReflectionInfo")
            messages = iter([item.SerializeToString() for item in asked])
            answers = [Answered.FromString(data) async for data in call(messages)]
            names = [found.name for found in answers[0].list_services_response.service]
            files = answers[1].file_descriptor_response.file_descriptor_proto

            assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(names)
            pool = descriptor_pool.DescriptorPool()
            for data in reversed(files):
                pool.AddSerializedFile(data)
            assert len(pool.FindServiceByName("inference.GRPCInferenceService").methods) == 20
            assert len(answers[2].file_descriptor_response.file_descriptor_proto) == 1
            assert answers[3].error_response.error_code == 5


async def test_a_stream_answers_in_order_and_marks_the_last_response(tmp_path: Path) -> None:
    asked = [simple_request(id="1"), service_pb2.ModelInferRequest(model_name="no", id="2")]
    asked.append(simple_request(id="3"))
    async with grpc_door(tmp_path) as (_, channel):
        call = channel.stream_stream(SERVICE + "ModelStreamInfer")
        messages = iter([item.SerializeToString() for item in asked])
        data = [part async for part in call(messages)]

    answers = [service_pb2.ModelStreamInferResponse.FromString(part) for part in data]
    assert [answer.infer_response.id for answer in answers] == ["1", "2", "3"]
    assert "unknown model" in answers[1].error_message
    assert answers[2].infer_response.parameters["triton_final_response"].bool_param


async def test_a_stream_can_ask_for_grpcs_own_errors(tmp_path: Path) -> None:
    asked = service_pb2.ModelInferRequest(model_name="no").SerializeToString()
    async with grpc_door(tmp_path) as (_, channel):
        call = channel.stream_stream(SERVICE + "ModelStreamInfer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call(iter([asked]), metadata=(("triton_grpc_error", "true"),)):
                pass

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_compressed_messages_are_accepted_and_bounded(tmp_path: Path) -> None:
    gzip = grpc.Compression.Gzip
    async with grpc_door(tmp_path, limits={"max_body_bytes": 10_000}) as (_, channel):
        infer = channel.unary_unary(SERVICE + "ModelInfer")
        data = await infer(simple_request().SerializeToString(), compression=gzip)
        bomb = simple_request()
        bomb.raw_input_contents.append(b"\0" * 5_000_000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(bomb.SerializeToString(), compression=gzip)

    assert service_pb2.ModelInferResponse.FromString(data).model_name == "simple"
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
