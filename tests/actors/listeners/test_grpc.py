"""The gRPC listener over a real socket, with the public client's messages."""

from __future__ import annotations

from pathlib import Path

from tritonclient.grpc import service_pb2

from tests.actors.listeners.doors import grpc_door, numbers

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
