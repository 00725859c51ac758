"""One variant's requests at one door: gathered, sent in batches, run again if a replica dies.

Requests of one turn of the event loop share an envelope. At most two batches' worth of rows a
replica is under way (one computing, one ready behind it); what comes meanwhile gathers here, so
that the busier the replicas are, the fewer messages a request costs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass

from actors.transport import Transport
from cluster.errors import DeadlineExceeded, EngineFailed, Overloaded, ShardLost, SquadronError
from cluster.protocols.envelope import Call, Reply

MAX_ATTEMPTS = 4
"""Sends of one request before it is given up: a request that kills what computes it must not go
round for ever, and each round costs a replica. Serve drops a dead replica from its choice as soon
as one send met it, so the second send finds another one or waits for the replacement."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting:
    """A call on its way. `deadline_s` is on the loop's clock."""

    call: Call
    deadline_s: float
    future: asyncio.Future[Reply]
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchLimits:
    """`window_rows`: rows under way to the replicas at once; `batch_rows`: rows of one envelope."""

    window_rows: int
    batch_rows: int
    max_waiting: int


class Dispatcher:
    """Lives on one event loop; every method is called there."""

    def __init__(
        self,
        transport: Transport,
        limits: DispatchLimits,
        *,
        on_retry: Callable[[int], None],
    ) -> None:
        self.limits = limits
        self._transport = transport
        self._on_retry = on_retry
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._rows_under_way = 0
        self._is_flush_due = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_id = 0

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    async def run(self, call: Call, *, deadline_s: float) -> Reply:
        """The replica's answer to a call (`call_id` and `left_s` are set here).

        Raises: the error the replica answered; DeadlineExceeded; Overloaded when too many wait;
        ShardLost when every attempt met a dying replica.
        """
        if len(self._waiting) >= self.limits.max_waiting:
            raise Overloaded(
                f"Exceeds maximum queue size ({self.limits.max_waiting})", retry_after_s=1
            )
        self._next_id += 1
        call.call_id = self._next_id
        waiting = _Waiting(call=call, deadline_s=deadline_s, future=self._loop.create_future())
        self._waiting.append(waiting)
        self._flush_soon()
        timer = self._loop.call_at(deadline_s, _expire, waiting)
        try:
            reply = await waiting.future
        finally:
            timer.cancel()
        if reply.error is not None:
            raise reply.error
        return reply

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        while self._waiting and self._rows_under_way < self.limits.window_rows:
            group = self._next_group()
            if group:
                self._rows_under_way += sum(item.call.rows for item in group)
                self._start(self._send(group))

    def _next_group(self) -> list[_Waiting]:
        """As many calls as one envelope takes; a call that was near a death travels alone."""
        group: list[_Waiting] = []
        rows = 0
        while self._waiting:
            item = self._waiting[0]
            if item.future.done():
                self._waiting.popleft()
                continue
            if group and (rows + item.call.rows > self.limits.batch_rows or item.attempts):
                break
            group.append(self._waiting.popleft())
            rows += item.call.rows
            if item.attempts:
                break
        return group

    async def _send(self, group: list[_Waiting]) -> None:
        now_s = self._loop.time()
        for item in group:
            item.call.left_s = item.deadline_s - now_s
        try:
            replies = await self._transport.send([item.call for item in group])
        except ShardLost as error:
            self._again(group, error)
        except SquadronError as error:
            _fail(group, error)
        except Exception as error:
            # A bug on the way must not leave callers waiting; the name alone, no details.
            _fail(group, EngineFailed(f"the replica's answer was lost: {type(error).__name__}"))
            raise
        else:
            _deliver(group, replies)
        finally:
            self._rows_under_way -= sum(item.call.rows for item in group)
            self._flush_soon()

    def _again(self, group: list[_Waiting], error: ShardLost) -> None:
        """Inference changes nothing, so it is safe to run it again."""
        alive = [item for item in group if not item.future.done()]
        self._on_retry(len(alive))
        for item in alive:
            item.attempts += 1
        _fail([item for item in alive if item.attempts >= MAX_ATTEMPTS], error)
        for item in alive:
            if item.attempts < MAX_ATTEMPTS:
                pause_s = 0.0 if item.attempts == 1 else 0.1 * 2 ** (item.attempts - 2)
                self._loop.call_later(pause_s, self._put_back, item)

    def _put_back(self, item: _Waiting) -> None:
        self._waiting.appendleft(item)
        self._flush_soon()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _expire(item: _Waiting) -> None:
    if not item.future.done():
        message = "Request timeout expired: the deadline passed before the answer came"
        item.future.set_exception(DeadlineExceeded(message))


def _fail(group: Iterable[_Waiting], error: SquadronError) -> None:
    for item in group:
        if not item.future.done():
            item.future.set_exception(error)


def _deliver(group: list[_Waiting], replies: list[Reply]) -> None:
    by_id = {reply.call_id: reply for reply in replies}
    for item in group:
        if not item.future.done():
            item.future.set_result(by_id[item.call.call_id])
