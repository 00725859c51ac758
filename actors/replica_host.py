"""The Serve deployment around one model replica: Serve starts, checks, replaces and drains it.

Doors of the node reach it over a Unix socket, other nodes' doors by Serve's handle.
"""

from __future__ import annotations

from ray import serve

from actors.delivery.node_link import NodeListener, replica_folder
from actors.garbage import collect_rarely
from actors.model_replica import ModelReplica, ReplicaSetup
from actors.node_folder import node_folder
from actors.process_limits import ProcessGuard


class ReplicaHost:
    """Ready when the engine is warm and the socket listens."""

    # Serve awaits an asynchronous constructor, on the loop that the replica will live on.
    async def __init__(self, setup: ReplicaSetup) -> None:  # type: ignore[misc]
        # Before the engine makes its threads: they inherit what is set here.
        self._guard = ProcessGuard(setup.limits)
        self._guard.hold(threads=setup.threads, folder=node_folder() / "cores")
        self._replica = ModelReplica(setup)
        context = serve.get_replica_context()
        folder = replica_folder(node_folder(), context.app_name, context.deployment)
        path = folder / f"{context.replica_id.unique_id}.sock"
        self._listener = NodeListener(path, self._replica.infer)
        await self._listener.start()
        collect_rarely()

    async def infer(self, message: bytes) -> bytes:
        """An envelope of calls in, an envelope of replies out."""
        return await self._replica.infer(message)

    def check_health(self) -> None:
        """Serve asks every health period. Raises: EngineFailed when it cannot answer."""
        self._replica.check_health()

    async def __del__(self) -> None:
        # Serve's only hook. It counts no request of ours over the socket, so what is in flight
        # there is finished here, before the process is ended.
        await self._listener.drain()
        await self._replica.close()
