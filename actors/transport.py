"""How a batch of calls reaches a model process. The envelope is the same on every way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ray import serve
from ray.exceptions import RayActorError, WorkerCrashedError

from actors.node_link import NodeLinks
from cluster.errors import ShardLost
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls


class Transport(Protocol):
    """Carries one batch to one replica of a variant and brings its replies back.

    Raises: ShardLost when the replica died before it answered; the calls may be run elsewhere.
    """

    async def send(self, calls: Sequence[Call]) -> list[Reply]: ...


class HandleTransport:
    """Through Ray Serve: it picks a live replica and reaches other nodes. One hop a batch."""

    def __init__(self, deployment: str, app: str) -> None:
        self._deployment = deployment
        self._handle = serve.get_deployment_handle(deployment, app)

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        try:
            reply: bytes = await self._handle.infer.remote(encode_calls(calls))
        except (RayActorError, WorkerCrashedError) as error:
            raise ShardLost(
                f"a replica of {self._deployment} died: {type(error).__name__}"
            ) from None
        return decode_replies(reply)


class NodeFirstTransport:
    """Over the node's own sockets while a replica of the variant is on this node, else by handle.

    A hop over a socket costs a tenth of a handle's; the handle finds replicas on other nodes and
    waits for one where there is none yet.
    """

    def __init__(self, links: NodeLinks, fallback: Transport) -> None:
        self._links = links
        self._fallback = fallback

    async def send(self, calls: Sequence[Call]) -> list[Reply]:
        link = await self._links.least_busy()
        if link is None:
            return await self._fallback.send(calls)
        return decode_replies(await link.exchange(encode_calls(calls)))
