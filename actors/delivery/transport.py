"""How a batch of calls reaches a model process. The envelope is the same on every way."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from ray.exceptions import RayActorError, WorkerCrashedError

from actors.delivery.node_link import NodeLinks
from actors.delivery.serve_handle import ServeHandle
from actors.delivery.withdrawals import Withdrawals
from actors.model_replica import ModelReplica
from cluster.errors import ShardLost
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls


class Transport(Protocol):
    """Carries one batch to one replica of a variant and brings its replies back.

    The replies come at once where the model is in this process and quicker than a task's start.
    What is in `withdrawals`, or comes to be, need not be computed; its reply goes to nobody.
    Raises: ShardLost when the replica died before it answered; the calls may be run elsewhere.
    """

    def send(
        self, calls: Sequence[Call], withdrawals: Withdrawals
    ) -> list[Reply] | Awaitable[list[Reply]]: ...


class MemoryTransport:
    """To a replica in the door's own process: no message is made, tensors are handed over."""

    def __init__(self, replica: ModelReplica) -> None:
        self._replica = replica

    def send(
        self, calls: Sequence[Call], withdrawals: Withdrawals
    ) -> list[Reply] | Awaitable[list[Reply]]:
        replies = self._replica.answer_now(calls)
        return self._replica.answer(calls, withdrawals) if replies is None else replies


class HandleTransport:
    """Through Ray Serve: it picks a live replica and reaches other nodes. One hop a batch.

    A call is not withdrawn by itself: Serve does not say which replica has it.
    """

    def __init__(self, deployment: str, app: str) -> None:
        self._deployment = deployment
        self._handle = ServeHandle(deployment, app, method_name="infer")

    async def send(self, calls: Sequence[Call], withdrawals: Withdrawals) -> list[Reply]:
        try:
            handle = await self._handle.get()
            reply: bytes = await handle.remote(encode_calls(calls))
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

    def __init__(self, links: NodeLinks, fallback: HandleTransport) -> None:
        self._links = links
        self._fallback = fallback

    async def send(self, calls: Sequence[Call], withdrawals: Withdrawals) -> list[Reply]:
        link = await self._links.least_busy()
        if link is None:
            return await self._fallback.send(calls, withdrawals)
        return decode_replies(await link.exchange(encode_calls(calls), withdrawals))
