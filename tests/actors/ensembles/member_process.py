"""A member in a process of its own behind a Unix socket, as replicas are: y = factor * x.

python -m tests.actors.ensembles.member_process SOCKET FACTOR DELAY_S
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np

from actors.delivery.node_link import NodeListener
from cluster.protocols.envelope import Reply, decode_calls, encode_replies
from cluster.tensors import tensor


async def serve(path: Path, factor: float, delay_s: float) -> None:
    async def answer(message: bytes, *_: object) -> bytes:
        await asyncio.sleep(delay_s)
        return encode_replies(
            Reply(
                call_id=call.call_id,
                outputs=(tensor("y", (factor * call.inputs[0].array).astype(np.float32)),),
            )
            for call in decode_calls(message)
        )

    listener = NodeListener(path, answer)
    await listener.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
