"""Which answers over gRPC are compressed: the bytes that come over a real socket are counted."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest
from tritonclient.grpc import service_pb2

from cluster.client import Client
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
        self._writers: list[asyncio.StreamWriter] = []

    async def close(self) -> None:
        """Sockets that outlive their loop would fail whatever test runs when they are collected."""
        for writer in self._writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def relay(
        self, port: int, caller: asyncio.StreamReader, back: asyncio.StreamWriter
    ) -> None:
        answers, onward = await asyncio.open_connection("127.0.0.1", port)
        self._writers += (back, onward)

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
async def counted_port(folder: Path, **server: Any) -> AsyncIterator[tuple[Counted, int]]:
    counted = Counted()
    async with grpc_listening(folder, **server) as (_, port):
        relay = await asyncio.start_server(
            lambda *streams: counted.relay(port, *streams), "127.0.0.1", 0
        )
        yield counted, relay.sockets[0].getsockname()[1]
        relay.close()
        await counted.close()


@asynccontextmanager
async def counted_door(
    folder: Path, options: list[tuple[str, int]], **server: Any
) -> AsyncIterator[tuple[Counted, grpc.aio.Channel]]:
    async with (
        counted_port(folder, **server) as (counted, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel,
    ):
        yield counted, channel


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


@pytest.mark.parametrize("compression", ["gzip", "deflate", None])
async def test_the_sdk_asks_for_what_it_sends(
    tmp_path: Path, compression: Literal["gzip", "deflate"] | None
) -> None:
    async with counted_port(tmp_path) as (counted, port):

        def work() -> None:
            with Client(f"grpc://127.0.0.1:{port}", compression=compression) as client:
                model = client.load_model("simple_identity")
                (text,) = model.predict([[b"x" * LARGE]])["OUTPUT0"].flat
                assert text == b"x" * LARGE

        await asyncio.to_thread(work)

    assert (counted.num_bytes < LARGE // 4) is (compression is not None)
