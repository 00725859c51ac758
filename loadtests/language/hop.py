"""`python -m loadtests.language.hop`: what a streamed part costs on its way from replica to door.

Two processes without Ray or an engine: 32 streams, a part of each in every step of 10 ms. CPU of
each process for one part: made an envelope, sent over the Unix socket, read and taken out again.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from actors.streams import link
from actors.streams.link import SUFFIX, StreamListener, open_stream
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls, encode_replies
from cluster.tensors import Tensor, bytes_array

NUM_STREAMS, NUM_PARTS, STEP_S, IDLE_STEPS = 32, 300, 0.01, 100
PART = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1700000000,"model":"assistant","choices":[{"index":0,"delta":{"content":" Paris"},'
    b'"logprobs":null,"finish_reason":null}]}\n\n'
)


def envelope() -> bytes:
    output = Tensor(name="text_output", datatype="BYTES", array=bytes_array([PART], (1,)))
    return encode_replies([Reply(call_id=1, outputs=(output,))])


def replica(path: Path, taken_at_once: int, told: Connection) -> None:
    link.TAKEN_AT_ONCE = taken_at_once
    told.send(asyncio.run(_serve(path, told)))


async def _serve(path: Path, told: Connection) -> float:
    waiting: list[asyncio.Future[None]] = []

    async def stream(message: bytes) -> AsyncGenerator[bytes, None]:
        for _ in range(NUM_PARTS):
            turn = asyncio.get_running_loop().create_future()
            waiting.append(turn)
            await turn
            yield envelope()

    listener = StreamListener(path, stream)
    await listener.start()
    told.send("ready")
    began_s = ended_s = -1.0
    num_idle = 0
    while num_idle < IDLE_STEPS:
        await asyncio.sleep(STEP_S)
        num_idle = 0 if waiting else num_idle + 1
        if waiting and began_s < 0:
            began_s = time.process_time()
        turns, waiting[:] = waiting[:], []
        for turn in turns:
            if not turn.done():
                turn.set_result(None)
            ended_s = time.process_time()
    await listener.drain()
    return ended_s - began_s


async def read_one(path: Path) -> None:
    call = Call(call_id=1, rows=1, left_s=60, inputs=(), parameters={})
    async with aclosing(open_stream(path, encode_calls([call]))) as parts:
        async for part in parts:
            (reply,) = decode_replies(part)
            assert bytes(reply.outputs[0].array.item()) == PART


async def read_all(path: Path) -> float:
    began_s = time.process_time()
    await asyncio.gather(*(read_one(path) for _ in range(NUM_STREAMS)))
    return time.process_time() - began_s


def measure(taken_at_once: int) -> tuple[float, float]:
    """CPU of replica and door, microseconds a part."""
    link.TAKEN_AT_ONCE = taken_at_once
    here, there = get_context("spawn").Pipe()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"r{SUFFIX}"
        process = get_context("spawn").Process(target=replica, args=(path, taken_at_once, there))
        process.start()
        here.recv()
        door_s = asyncio.run(read_all(path))
        replica_s = here.recv()
        process.join()
    per_part = 1e6 / (NUM_STREAMS * NUM_PARTS)
    return replica_s * per_part, door_s * per_part


def main() -> None:
    print(f"{NUM_STREAMS} streams, CPU a part, load {os.getloadavg()[0]:.1f}")
    for taken_at_once in (1, link.WINDOW // 2) * 3:
        replica_us, door_us = measure(taken_at_once)
        print(
            f"told of {taken_at_once} at once: replica {replica_us:5.1f} us  door {door_us:5.1f} us"
        )


if __name__ == "__main__":
    main()
