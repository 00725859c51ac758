"""The Serve deployment around one model replica: Serve starts, checks, replaces and drains it.

Doors of the node reach it over a Unix socket, other nodes' doors by Serve's handle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ray import serve

from actors.autoscaling.names import BATCH, BUSY, MEMORY, ROWS, SERVED
from actors.autoscaling.resident import resident_bytes
from actors.delivery.node_link import NodeListener, replica_folder
from actors.garbage import collect_rarely
from actors.language.replica import LanguageReplica
from actors.logs.set_up import set_up_logs
from actors.measures.processes import watch_process
from actors.model_replica import ModelReplica, ReplicaSetup, brought
from actors.node_folder import node_folder
from actors.process_limits import ProcessGuard
from actors.sequences.replica import SequenceReplica
from actors.sharding.replica import leader_limits, sharded_engine
from actors.streams.link import SUFFIX, StreamListener
from actors.streams.replica import StreamReplica
from cluster.errors import Unsupported

Replica = ModelReplica | SequenceReplica | StreamReplica | LanguageReplica


class ReplicaHost:
    """Ready when the engine is warm and the socket listens."""

    # Serve awaits an asynchronous constructor, on the loop that the replica will live on.
    async def __init__(self, setup: ReplicaSetup) -> None:  # type: ignore[misc]
        setup = await asyncio.to_thread(brought, setup)
        # Before the engine makes its threads: they inherit what is set here.
        self._guard = ProcessGuard(leader_limits(setup))
        self._guard.hold(threads=setup.threads, folder=node_folder() / "cores")
        context = serve.get_replica_context()
        set_up_logs(setup.logs, role="replica", variant=setup.variant)
        self._replica = _replica(setup, context.app_name, context.replica_id.unique_id)
        if isinstance(self._replica, LanguageReplica):
            await self._replica.start()
        folder = replica_folder(node_folder(), context.app_name, context.deployment)
        path = folder / f"{context.replica_id.unique_id}.sock"
        self._listener = NodeListener(path, self._replica.infer)
        await self._listener.start()
        self._streams: StreamListener | None = None
        if isinstance(self._replica, StreamReplica | LanguageReplica):
            self._streams = StreamListener(path.with_suffix(SUFFIX), self._replica.stream)
            await self._streams.start()
        watch_process("replica", setup.variant)
        collect_rarely()

    async def infer(self, message: bytes | memoryview) -> bytes:
        """An envelope of calls in, an envelope of replies out."""
        return await self._replica.infer(message)

    async def stream(self, message: bytes) -> AsyncGenerator[bytes, None]:
        """An envelope of one call in, an envelope a response out."""
        if not isinstance(self._replica, StreamReplica | LanguageReplica):
            raise Unsupported("the model is not decoupled")
        async with aclosing(self._replica.stream(message)) as parts:
            async for part in parts:
                yield part

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve asks for it where the deployment is autoscaled; its policy reads it."""
        tally = self._replica.tally
        told = {
            BUSY: tally.busy_s,
            SERVED: float(tally.num_served),
            MEMORY: float(resident_bytes()),
        }
        if isinstance(self._replica, ModelReplica):
            told[ROWS] = float(self._replica.tally.num_rows)
            told |= {f"{BATCH}{rows}": s for rows, s in self._replica.batch_s().items()}
        return told

    def check_health(self) -> None:
        """Serve asks every health period. Raises: EngineFailed when it cannot answer."""
        self._replica.check_health()

    async def __del__(self) -> None:
        # Serve's only hook. It counts no request of ours over the socket, so what is in flight
        # there is finished here, before the process is ended.
        await self._listener.drain()
        if self._streams is not None:
            await self._streams.drain()
        await self._replica.close()


def _replica(setup: ReplicaSetup, app: str, replica_id: str) -> Replica:
    if setup.card.format == "causal_lm":
        return LanguageReplica(setup)
    make = sharded_engine(app, replica_id) if setup.sharding is not None else None
    if setup.card.decoupled:
        return StreamReplica(setup, make_ready=make)
    if make is not None:
        return ModelReplica(setup, make_ready=make)
    return ModelReplica(setup) if setup.sequences is None else SequenceReplica(setup)
