"""An ensemble whose last step streams, over HTTP and over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import prometheus_client.values
import pytest
from tritonclient.grpc import service_pb2

from actors.extensions.offered import make_offered
from actors.front_door import FrontDoor
from actors.listeners.grpc.listener import GrpcListener
from actors.listeners.http_messages import HttpRequest, HttpStream
from actors.listeners.http_routes import HttpRoutes
from actors.listeners.port_claim import claim_port
from cluster.protocols.envelope import Call, Reply
from cluster.tensors import tensor
from tests.actors.ensembles.test_run import door_of, times

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


@pytest.fixture(autouse=True)
def _own_metrics() -> Iterator[None]:
    before = prometheus_client.values.ValueClass
    yield
    prometheus_client.values.ValueClass = before


class Thrice:
    """Its input, once, twice and three times."""

    async def stream(self, call: Call) -> AsyncGenerator[Reply, None]:
        for factor in (1, 2, 3):
            y = tensor("y", factor * call.inputs[0].array)
            yield Reply(call_id=call.call_id, outputs=(y,))


@asynccontextmanager
async def streaming_door(folder: Path) -> AsyncIterator[FrontDoor]:
    steps: list[dict[str, Any]] = [
        {"model": "a", "outputs": {"y": "half"}},
        {"model": "stream", "inputs": {"x": "half"}, "outputs": {"y": "end"}},
    ]
    members = {"a": times(10), "stream": times(1)}
    async with door_of(
        folder, steps, members, is_decoupled=True, streams=lambda route: Thrice()
    ) as door:
        yield door


async def test_over_http_each_part_is_an_event(tmp_path: Path) -> None:
    async with streaming_door(tmp_path) as door:
        routes = HttpRoutes(door, make_offered(door, tmp_path / "metrics"), app="test")
        asked = HttpRequest(
            method="POST",
            path="/v2/models/e/generate_stream",
            headers={"host": "localhost"},
            body=orjson.dumps({"x": [1.0, 2.0]}),
        )
        reply = await routes.answer(asked)
        assert isinstance(reply, HttpStream)
        parts = [bytes(part) async for part in reply.parts]

    events = [orjson.loads(part.removeprefix(b"data: ")) for part in parts]
    assert [event["end"] for event in events] == [[10, 20], [20, 40], [30, 60]]
    assert {event["model_name"] for event in events} == {"e"}


async def test_over_grpc_each_part_is_a_response_of_the_stream(tmp_path: Path) -> None:
    asked = service_pb2.ModelInferRequest(model_name="e", id="7")
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    asked.raw_input_contents.append(np.array([[1, 2]], np.float32).tobytes())

    async with streaming_door(tmp_path) as door:
        with claim_port("127.0.0.1", 0, key="k", folder=tmp_path) as claim:
            listener = GrpcListener(door, make_offered(door, tmp_path / "metrics"))
            await listener.start(claim)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{claim.port}") as channel:
                call = channel.stream_stream(STREAM)(iter([asked.SerializeToString()]))
                data = [part async for part in call]
            await listener.drain(0.1)

    answers = [service_pb2.ModelStreamInferResponse.FromString(part) for part in data]
    found = [
        np.frombuffer(answer.infer_response.raw_output_contents[0], np.float32).tolist()
        for answer in answers
    ]
    assert found == [[10, 20], [20, 40], [30, 60]]
    assert {answer.infer_response.id for answer in answers} == {"7"}
