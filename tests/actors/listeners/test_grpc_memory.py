"""What a gRPC call leaves behind, and what its message may become: over a real socket."""

from __future__ import annotations

import gc
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import grpc
import pytest
from tritonclient.grpc import service_pb2

from actors.listeners.grpc.compression import MessageExpansion
from cluster.errors import PayloadTooLarge
from tests.actors.listeners.doors import grpc_door, numbers

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
LARGE = 300_000


def wrong(num_bytes: int = LARGE) -> bytes:
    """A request with far more bytes than its shape says."""
    asked = service_pb2.ModelInferRequest(model_name="simple")
    for name in ("INPUT0", "INPUT1"):
        asked.inputs.add(name=name, datatype="INT32", shape=[1, 16])
        asked.raw_input_contents.append(numbers(1).tobytes())
    asked.raw_input_contents[1] = bytes(num_bytes)
    data: bytes = asked.SerializeToString()
    return data


@contextmanager
def garbage() -> Iterator[list[object]]:
    """At the end: what only the garbage collector would have freed."""
    gc.collect()
    gc.disable()
    found: list[object] = []
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def messages_held(left: list[object]) -> list[bytes]:
    """Large messages that a frame of our listener holds."""
    return [
        held
        for frame in left
        if isinstance(frame, FrameType) and "/actors/listeners/" in frame.f_code.co_filename
        for held in gc.get_referents(frame)
        if isinstance(held, bytes) and len(held) >= LARGE
    ]


@pytest.mark.parametrize("access_log", [False, True])
async def test_a_refused_message_is_freed_without_the_garbage_collector(
    tmp_path: Path, access_log: bool
) -> None:
    async with grpc_door(tmp_path, logging={"access_log": access_log}) as (_, channel):
        infer = channel.unary_unary(INFER)
        with garbage() as left:
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await infer(wrong())
        code = caught.value.code()

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert messages_held(left) == []


@pytest.mark.parametrize("is_strict", [False, True])
async def test_nor_does_a_stream_leave_one(tmp_path: Path, is_strict: bool) -> None:
    metadata = (("triton_grpc_error", "true"),) if is_strict else ()
    async with grpc_door(tmp_path) as (_, channel):
        with garbage() as left:
            call = channel.stream_stream(SERVICE + "ModelStreamInfer")([wrong()], metadata=metadata)
            if is_strict:
                with pytest.raises(grpc.aio.AioRpcError):
                    await call.read()
            else:
                answer = service_pb2.ModelStreamInferResponse.FromString(await call.read())
                assert answer.error_message

    assert messages_held(left) == []


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_a_message_is_expanded_within_the_limit(pack: object) -> None:
    assert callable(pack)
    expansion = MessageExpansion(1000)
    plain = wrong(100)

    assert await expansion.message(pack(plain)) == plain
    assert await expansion.message(plain) == plain
    with pytest.raises(PayloadTooLarge, match="at most 1000 are allowed"):
        await expansion.message(pack(bytes(10_000_000)))


async def test_what_only_begins_like_a_compressed_message_stays_what_it_is() -> None:
    expansion = MessageExpansion(1000)
    unknown_field = b"\x78\x9c\x01" + wrong(10)

    assert await expansion.message(unknown_field) == unknown_field
    assert await expansion.message(b"") == b""


@pytest.mark.parametrize("coding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_every_kind_of_call_takes_compressed_messages(
    tmp_path: Path, coding: grpc.Compression
) -> None:
    asked = service_pb2.ModelInferRequest(model_name="simple", id="x" * 3000)
    for name in ("INPUT0", "INPUT1"):
        asked.inputs.add(name=name, datatype="INT32", shape=[1, 16])
        asked.raw_input_contents.append(numbers(1).tobytes())
    # A field that nobody knows, so that even a small message is worth compressing.
    padded = service_pb2.ModelReadyRequest(name="simple").SerializeToString()
    padded += b"\x7a\xa0\x1f" + b"y" * 4000
    async with grpc_door(tmp_path) as (_, channel):
        infer = await channel.unary_unary(INFER)(asked.SerializeToString(), compression=coding)
        ready = await channel.unary_unary(SERVICE + "ModelReady")(padded, compression=coding)
        stream = channel.stream_stream(
            SERVICE + "ModelStreamInfer",
        )([asked.SerializeToString()] * 2, compression=coding)
        streamed = [service_pb2.ModelStreamInferResponse.FromString(each) async for each in stream]
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        await check(b"\x7a\xa0\x1f" + b"y" * 4000, compression=coding)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await check(b"\x7a\xa0\x8d\x06" + b"y" * 100_000, compression=coding)

    assert service_pb2.ModelInferResponse.FromString(infer).id == asked.id
    assert service_pb2.ModelReadyResponse.FromString(ready).ready
    assert [each.infer_response.id for each in streamed] == [asked.id] * 2
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
