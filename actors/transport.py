"""How a batch of calls reaches a model process. The envelope is the same on every way."""

from __future__ import annotations

from typing import Protocol

from ray import serve
from ray.exceptions import RayActorError, WorkerCrashedError

from cluster.errors import ShardLost


class Transport(Protocol):
    """Carries one envelope to one replica of a variant and brings its replies back.

    Raises: ShardLost when the replica died before it answered; the calls may be run elsewhere.
    """

    async def send(self, message: bytes) -> bytes: ...


class HandleTransport:
    """Through Ray Serve: it picks a live replica and reaches other nodes. One hop a batch."""

    def __init__(self, deployment: str, app: str) -> None:
        self._deployment = deployment
        self._handle = serve.get_deployment_handle(deployment, app)

    async def send(self, message: bytes) -> bytes:
        try:
            reply: bytes = await self._handle.infer.remote(message)
        except (RayActorError, WorkerCrashedError) as error:
            raise ShardLost(
                f"a replica of {self._deployment} died: {type(error).__name__}"
            ) from None
        return reply
