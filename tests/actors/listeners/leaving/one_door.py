"""A door's gRPC listener in a process of its own: `one_door.py FOLDER PORT`; SIGTERM drains it."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from actors.listeners.grpc.listener import GrpcListener
from actors.listeners.port_claim import claim_port
from tests.actors.listeners.doors import make_door


async def main(folder: Path, port: int) -> None:
    leave = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
    door = make_door(folder, limits={"grpc_connection_age_s": 1})
    with claim_port("127.0.0.1", port, key="k", folder=folder) as claim:
        listener = GrpcListener(door.front, door.offered)
        await listener.start(claim)
        print("ready", flush=True)
        await leave.wait()
        await listener.drain(20)


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
