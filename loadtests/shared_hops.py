"""What an envelope's way between two processes of a node costs, through the socket and by shared
memory: CPU of both ends a round trip (`python -m loadtests.shared_hops`)."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from actors.delivery.node_link import Frame, NodeLinks, NodeListener
from cluster.protocols.envelope import (
    Call,
    Reply,
    decode_calls,
    decode_replies,
    encode_calls,
    encode_replies,
)
from cluster.tensors import tensor

SIZES = (16 * 2**10, 64 * 2**10, 256 * 2**10, 2**20, 4 * 2**20)
ROUNDS = 300


def echo(path: str) -> None:
    """A model process whose engine costs nothing."""

    async def answer(frame: Frame, *_: object) -> bytes:
        (call,) = decode_calls(frame)
        return encode_replies([Reply(call_id=call.call_id, outputs=call.inputs)])

    async def serve() -> None:
        await NodeListener(Path(path), answer).start()
        await asyncio.Event().wait()

    asyncio.run(serve())


async def measure(folder: Path, pid: int, num_bytes: int) -> dict[str, object]:
    links, both = NodeLinks(folder), (psutil.Process(), psutil.Process(pid))
    x = tensor("x", np.ones((1, num_bytes // 4), np.float32))
    while (link := await links.least_busy()) is None:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.05)
    before, began_s = [0.0, 0.0], 0.0
    for turn in range(ROUNDS + 10):
        if turn == 10:
            before = [sum(each.cpu_times()[:2]) for each in both]
            began_s = time.perf_counter()
        call = Call(call_id=1, rows=1, left_s=1.0, inputs=(x,))
        (reply,) = decode_replies(await link.exchange(encode_calls([call])))
        assert reply.outputs[0].array[0, -1] == 1
        del reply
    wall_us = (time.perf_counter() - began_s) / ROUNDS * 1e6
    after = [sum(each.cpu_times()[:2]) for each in both]
    cpu_us = [(b - a) / ROUNDS * 1e6 for a, b in zip(before, after, strict=True)]
    found = {"bytes": num_bytes, "is_shared": link.shelf.num_put > 0, "wall_us": round(wall_us)}
    links.close()
    return {**found, "door_cpu_us": round(cpu_us[0]), "model_cpu_us": round(cpu_us[1])}


def main() -> None:
    for is_shared in (False, True):
        if not is_shared:
            # Both ends, the one that is started below too, find no such memory.
            memfd_create = os.memfd_create
            del os.memfd_create
        with tempfile.TemporaryDirectory() as name:
            process = multiprocessing.get_context("fork").Process(
                target=echo, args=(f"{name}/a.sock",), daemon=True
            )
            process.start()
            for num_bytes in SIZES:
                found = asyncio.run(measure(Path(name), process.pid or 0, num_bytes))
                print(json.dumps(found), flush=True)
            process.kill()
            process.join()
        if not is_shared:
            os.memfd_create = memfd_create


if __name__ == "__main__":
    sys.exit(main())
