from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from actors.listeners.port_claim import claim_port
from actors.listeners.socket_sharing import SharedListener


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_connection_queued_at_a_door_that_leaves_is_accepted_by_her_sister(
    tmp_path: Path,
) -> None:
    port = free_port()
    with (
        claim_port("127.0.0.1", port, key="k", folder=tmp_path) as one,
        claim_port("127.0.0.1", port, key="k", folder=tmp_path) as two,
    ):
        first = SharedListener(one, tmp_path)
        first.offer()
        second = await asyncio.to_thread(SharedListener, two, tmp_path)
        queued = socket.create_connection(("127.0.0.1", port))

        first.close()

        second.socket.settimeout(2)
        accepted, _ = await asyncio.to_thread(second.socket.accept)
        accepted.sendall(b"hello")
        assert queued.recv(5) == b"hello"
        accepted.close()
        queued.close()
        second.close()


async def test_without_a_sister_the_door_binds_by_itself(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / f"port-{port}.sock").touch()
    with claim_port("127.0.0.1", port, key="k", folder=tmp_path) as claim:
        alone = SharedListener(claim, tmp_path)

        assert alone.socket.getsockname() == ("127.0.0.1", port)
        alone.close()
