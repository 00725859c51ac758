"""Which answers over gRPC are compressed: the bytes that come over a real socket are counted."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tests.actors.listeners.doors import grpc_listening

SERVICE = "/inference.GRPCInferenceService/"
ASKING = (("accept-encoding", "gzip"),)
NO_GZIP = [("grpc.compression_enabled_algorithms_bitset", 0b001)]
LARGE = 100_000


def request(num_bytes: int) -> bytes:
    """A text that compresses well, for the model that gives it back."""
    asked = service_pb2.ModelInferRequest(model_name="simple_identity")
    asked.inputs.add(name="INPUT0", datatype="BYTES", shape=[1, 1])
    asked.raw_input_contents.append(struct.pack("<I", num_bytes) + b"x" * num_bytes)
    data: bytes = asked.SerializeToString()
    return data


class Counted:
    """A relay that counts what comes back from the server."""

    def __init__(self) -> None:
        self.num_bytes = 0

    async def relay(
        self, port: int, caller: asyncio.StreamReader, back: asyncio.StreamWriter
    ) -> None:
        answers, onward = await asyncio.open_connection("127.0.0.1", port)

        async def pass_on() -> None:
            with suppress(ConnectionError):
                while part := await caller.read(65536):
                    onward.write(part)
            onward.close()

        sending = asyncio.create_task(pass_on())
        with suppress(ConnectionError):
            while part := await answers.read(65536):
                self.num_bytes += len(part)
                back.write(part)
        back.close()
        await sending


@asynccontextmanager
async def counted_door(
    folder: Path, options: list[tuple[str, int]], **server: Any
) -> AsyncIterator[tuple[Counted, grpc.aio.Channel]]:
    counted = Counted()
    async with grpc_listening(folder, **server) as (_, port):
        relay = await asyncio.start_server(
            lambda *streams: counted.relay(port, *streams), "127.0.0.1", 0
        )
        address = relay.sockets[0].getsockname()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{address[1]}", options=options) as channel:
            yield counted, channel
        relay.close()


@pytest.mark.parametrize(
    ("configured", "metadata", "options", "is_small"),
    [
        ("none", (), [], False),
        ("none", ASKING, [], True),
        ("none", (("accept-encoding", "identity"),), [], False),
        ("none", ASKING, NO_GZIP, False),
        ("low", (), [], True),
        ("high", (), [], True),
        ("high", (), NO_GZIP, False),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_large_answer_is_compressed_for_who_asks_and_accepts(
    tmp_path: Path,
    configured: str,
    metadata: tuple[tuple[str, str], ...],
    options: list[tuple[str, int]],
    is_small: bool,
    is_streamed: bool,
) -> None:
    server = {"grpc_compression": configured}
    async with counted_door(tmp_path, options, **server) as (counted, channel):
        if is_streamed:
            infer = channel.stream_stream(SERVICE + "ModelStreamInfer")
            call = infer([request(LARGE)], metadata=metadata)
            data = await call.read()
            answer = service_pb2.ModelStreamInferResponse.FromString(data).infer_response
        else:
            infer = channel.unary_unary(SERVICE + "ModelInfer")
            data = await infer(request(LARGE), metadata=metadata)
            answer = service_pb2.ModelInferResponse.FromString(data)

    assert answer.raw_output_contents[0][4:] == b"x" * LARGE
    assert (counted.num_bytes < len(data) // 4) is is_small


async def test_a_small_answer_stays_as_it_is(tmp_path: Path) -> None:
    """Over one connection, so that what is not the answer counts once."""
    sizes = []
    async with counted_door(tmp_path, [], grpc_compression="low") as (counted, channel):
        infer = channel.unary_unary(SERVICE + "ModelInfer")
        for num_bytes in (800, 800, 1200, 1200):
            before = counted.num_bytes
            data = await infer(request(num_bytes))
            sizes.append((len(data), counted.num_bytes - before))

    small, large = sizes[1], sizes[3]
    assert small[0] < 1024 <= large[0]
    assert small[1] > small[0]
    assert large[1] < large[0]
