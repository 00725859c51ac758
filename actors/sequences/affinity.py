"""All requests of a sequence go to one replica, one after the other.

A door finds the replica by rendezvous hashing over those of its node and remembers it while the
sequence lives. When that replica is gone its state is too: the caller is told to start again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray.exceptions import RayActorError, WorkerCrashedError

from actors.delivery.node_link import NodeLinks
from actors.delivery.serve_handle import ServeHandle
from cluster.errors import DeadlineExceeded, Overloaded, SequenceLost, ShardLost
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls
from cluster.routing.affinity import rank
from cluster.scheduling.sequences import NOT_STARTED

MAX_ATTEMPTS = 4
"""Replicas that a START may meet dying: nothing is lost with them, so it goes elsewhere."""


class Replica(Protocol):
    """One replica, or what stands for one. `is_open`: it can still be sent to."""

    @property
    def name(self) -> str: ...

    @property
    def is_open(self) -> bool: ...

    async def exchange(self, message: bytes) -> bytes | memoryview:
        """Raises: ShardLost when it goes before it answers."""
        ...


class Replicas(Protocol):
    """The replicas of one variant that a door can reach."""

    async def of(self, key: int | str) -> Sequence[Replica]:
        """All that may hold the sequence `key`, the likeliest first; at least one."""
        ...


@dataclass(slots=True, kw_only=True)
class _Held:
    """What a door knows of a sequence. `turn`: its requests wait for each other."""

    replica: Replica | None = None
    num_requests: int = 0
    last_s: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class SequenceDispatcher:
    """One variant's sequences at one door; lives on one event loop. `num_waiting`: requests that
    are not answered yet."""

    def __init__(self, replicas: Replicas, *, idle_s: float, max_waiting: int) -> None:
        self._replicas = replicas
        self._idle_s = idle_s
        self._max_waiting = max_waiting
        self.num_waiting = 0
        self._loop = asyncio.get_running_loop()
        self._held: dict[int | str, _Held] = {}
        self._swept_s = self._loop.time()

    @property
    def num_held(self) -> int:
        """Sequences that this door remembers."""
        return len(self._held)

    async def run(self, call: Call, *, deadline_s: float) -> Reply:
        """The replica's answer to a call that has a `sequence`.

        Raises: the error the replica answered; DeadlineExceeded; Overloaded when too many wait;
        SequenceLost when the sequence's replica is gone.
        """
        step = call.sequence
        assert step is not None
        if self.num_waiting >= self._max_waiting:
            raise Overloaded(f"Exceeds maximum queue size ({self._max_waiting})", retry_after_s=1)
        self._sweep()
        held = self._held.setdefault(step.id, _Held())
        held.num_requests += 1
        self.num_waiting += 1
        try:
            async with asyncio.timeout_at(deadline_s), held.turn:
                call.left_s = deadline_s - self._loop.time()
                reply = await self._send(held, call)
        except TimeoutError:
            raise DeadlineExceeded(
                "Request timeout expired: the deadline passed before the answer came"
            ) from None
        finally:
            self.num_waiting -= 1
            held.num_requests -= 1
            held.last_s = self._loop.time()
            if held.replica is None and not held.num_requests:
                self._held.pop(step.id, None)
        if reply.error is not None:
            raise reply.error
        return reply

    async def _send(self, held: _Held, call: Call) -> Reply:
        step = call.sequence
        assert step is not None
        if step.is_start:
            reply = await self._start(held, call)
        elif held.replica is None:
            reply = await self._find(held, call)
        else:
            if not held.replica.is_open:
                held.replica = None
                raise _lost(step.id)
            try:
                reply = await _exchange(held.replica, call)
            except ShardLost:
                held.replica = None
                raise _lost(step.id) from None
        if step.is_end or _is_not_started(reply):
            held.replica = None
        return reply

    async def _start(self, held: _Held, call: Call) -> Reply:
        step = call.sequence
        assert step is not None
        # A running sequence that starts again does so where it is: the old one is ended there.
        choice = [held.replica] if held.replica is not None and held.replica.is_open else []
        for attempt in range(1, MAX_ATTEMPTS + 1):
            replica = (choice or await self._replicas.of(step.id))[0]
            choice = []
            held.replica = replica
            try:
                return await _exchange(replica, call)
            except ShardLost:
                held.replica = None
                if attempt == MAX_ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _find(self, held: _Held, call: Call) -> Reply:
        """For a sequence that another door started: who knows it answers; usually the first."""
        step = call.sequence
        assert step is not None
        for replica in await self._replicas.of(step.id):
            try:
                reply = await _exchange(replica, call)
            except ShardLost:
                raise _lost(step.id) from None
            if not _is_not_started(reply):
                held.replica = replica
                break
        return reply

    def _sweep(self) -> None:
        """Forget those that were idle for longer than their replica remembers them."""
        now_s = self._loop.time()
        if now_s - self._swept_s < self._idle_s:
            return
        self._swept_s = now_s
        for key, held in list(self._held.items()):
            if not held.num_requests and now_s - held.last_s > self._idle_s:
                del self._held[key]


async def _exchange(replica: Replica, call: Call) -> Reply:
    (reply,) = decode_replies(await replica.exchange(encode_calls([call])))
    return reply


def _is_not_started(reply: Reply) -> bool:
    return reply.error is not None and NOT_STARTED in reply.error.message


def _lost(key: int | str) -> SequenceLost:
    return SequenceLost(
        f"sequence {key} is lost with the replica that held its state: start it again "
        "(sequence_start)"
    )


class NodeFirstReplicas:
    """Those of the node by their sockets; without one, Serve's consistent hashing finds one of
    another node, the same for a sequence as long as the replicas stay."""

    def __init__(self, links: NodeLinks, deployment: str, app: str) -> None:
        self._links = links
        self._deployment = deployment
        self._handle = ServeHandle(deployment, app, method_name="infer")

    async def of(self, key: int | str) -> Sequence[Replica]:
        links = {link.name: link for link in await self._links.live()}
        if links:
            return [links[name] for name in rank(key, links)]
        handle = (await self._handle.get()).options(session_id=f"{type(key).__name__}:{key}")
        return [_ByHandle(f"{self._deployment} by handle", handle)]


class _ByHandle:
    """Whatever replica Serve's router keeps a session on. One that takes over after a death knows
    no sequence of its predecessor, and says so."""

    is_open = True

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self._handle = handle

    async def exchange(self, message: bytes) -> bytes | memoryview:
        try:
            reply: bytes = await self._handle.remote(message)
        except (RayActorError, WorkerCrashedError) as error:
            raise ShardLost(f"a replica died: {type(error).__name__}") from None
        return reply
