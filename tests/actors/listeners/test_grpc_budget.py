"""What all gRPC messages of a door may hold together, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2

from cluster.protocols.envelope import Call, Reply
from cluster.tensors import bytes_array
from tests.actors.listeners.doors import Computing, grpc_door, numbers

SERVICE = "/inference.GRPCInferenceService/"


class _Waiting(Computing):
    """Computes when it is told to; knows when it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda inputs: {"OUTPUT0": inputs["INPUT0"], "OUTPUT1": inputs["INPUT1"]})
        self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def send(self, calls: Sequence[Call], *_: object) -> list[Reply]:
        self.is_asked.set()
        await self.may_answer.wait()
        return await super().send(calls)


def request(rows: int) -> bytes:
    asked = service_pb2.ModelInferRequest(model_name="simple")
    for name in ("INPUT0", "INPUT1"):
        asked.inputs.add(name=name, datatype="INT32", shape=[rows, 16])
        asked.raw_input_contents.append(numbers(rows).tobytes())
    data: bytes = asked.SerializeToString()
    return data


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_messages_under_way_hold_a_bounded_number_of_bytes(
    tmp_path: Path, is_streamed: bool
) -> None:
    limits = {"max_body_bytes": 1200, "max_buffered_bytes": 1500}
    replica = _Waiting()
    async with grpc_door(tmp_path, transport=replica, limits=limits) as (_, channel):
        infer = channel.unary_unary(SERVICE + "ModelInfer")
        held = asyncio.ensure_future(infer(request(8)))
        await replica.is_asked.wait()
        if is_streamed:
            stream = channel.stream_stream(SERVICE + "ModelStreamInfer")([request(8)])
            text = service_pb2.ModelStreamInferResponse.FromString(await stream.read())
            refused = text.error_message
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await infer(request(8))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            refused = str(caught.value.details())
        small = asyncio.ensure_future(infer(request(1)))
        replica.may_answer.set()
        await asyncio.gather(held, small)
        after = await infer(request(8))

    assert "limits.max_buffered_bytes" in refused
    assert service_pb2.ModelInferResponse.FromString(after).model_name == "simple"


async def test_no_more_calls_than_twice_the_requests_in_flight(tmp_path: Path) -> None:
    async with grpc_door(tmp_path, limits={"max_in_flight": 1}) as (_, channel):
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        watching = [watch(b"") for _ in range(2)]
        for call in watching:
            await call.read()
        infer = channel.unary_unary(SERVICE + "ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await infer(request(1))
        watching[0].cancel()
        async with asyncio.timeout(5):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    after = await infer(request(1))
                    break
        watching[1].cancel()

    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert service_pb2.ModelInferResponse.FromString(after).model_name == "simple"


async def test_a_stream_whose_answers_nobody_reads_is_given_up(tmp_path: Path) -> None:
    replica = Computing(lambda _: {"OUTPUT0": bytes_array([b"x" * 10**6], (1, 1))})
    asked = service_pb2.ModelInferRequest(model_name="simple_identity")
    asked.inputs.add(name="INPUT0", datatype="BYTES", shape=[1, 1])
    asked.raw_input_contents.append(b"\1\0\0\0x")
    limits = {"send_timeout_s": 0.2}
    async with grpc_door(tmp_path, transport=replica, limits=limits) as (_, channel):
        call = channel.stream_stream(SERVICE + "ModelStreamInfer")()
        for _ in range(100):
            await call.write(asked.SerializeToString())
        await asyncio.sleep(1.5)
        answers: list[bytes] = []

        async def read() -> None:
            async for answer in call:
                answers.append(answer)

        with pytest.raises(grpc.aio.AioRpcError) as given_up:
            await asyncio.wait_for(read(), 10)

    assert given_up.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "limits.send_timeout_s" in str(given_up.value.details())
    assert len(answers) < 100
