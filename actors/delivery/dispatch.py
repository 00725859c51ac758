"""One variant's requests at one door: gathered, sent in batches, run again if a replica dies.

Requests of one turn of the event loop share an envelope. At most two batches' worth of rows a
replica is under way (one computing, one ready behind it); what comes meanwhile waits here, by
priority and by the tenants' turns, so that the busier the replicas are, the fewer messages a
request costs, and what cannot be answered in time is refused before it costs anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from math import inf

from actors.delivery.ticket import (
    Flight,
    Ticket,
    abandon,
    close,
    deliver,
    drop,
    fail,
    is_open,
    landed,
    settle,
    weight_of,
)
from actors.delivery.transport import Transport
from actors.delivery.withdrawals import Withdrawals
from cluster.errors import DeadlineExceeded, EngineFailed, ShardLost, SquadronError
from cluster.observability.door_metrics import Refusal
from cluster.protocols.envelope import Call, Reply
from cluster.scheduling.admission import Reject
from cluster.scheduling.agenda import Agenda
from cluster.scheduling.batch_queue import BatchQueue
from cluster.scheduling.decision import Run
from cluster.scheduling.hand_over import HandOvers
from cluster.scheduling.policy import BatchPolicy

logger = logging.getLogger("squadron.delivery")

MAX_ATTEMPTS = 4
"""Sends of one request before it is given up: a request that kills what computes it must not go
round for ever, and each round costs a replica. Serve drops a dead replica from its choice as soon
as one send met it, so the second send finds another one or waits for the replacement."""

INLINE_GAIN = 1 / 8
"""Of the moving mean of what a batch takes that is computed in this process, in the loop."""

_TOO_LATE = "Request timeout expired: too many came at once, too little of its time was left"
_EXPIRED = "Request timeout expired: the deadline passed before the answer came"


class Dispatcher:
    """Lives on one event loop; every method is called there.

    `window_rows`: rows under way to the replicas at once; one envelope holds at most the policy's
    `max_batch_size` of them.
    """

    def __init__(
        self,
        transport: Transport,
        policy: BatchPolicy,
        *,
        window_rows: int,
        on_retry: Callable[[int], None],
        on_refusal: Callable[[Refusal], None],
    ) -> None:
        self.window_rows = window_rows
        self._transport = transport
        self._on_retry = on_retry
        self._on_refusal = on_refusal
        self._loop = asyncio.get_running_loop()
        self._batch_rows = policy.max_batch_size
        # The replica waits for company and sorts by shape; here nobody waits for anybody.
        self._queue: BatchQueue[Call] = BatchQueue(
            replace(policy, max_queue_delay_s=0.0, preferred_batch_sizes=(), has_shape_lanes=False)
        )
        self._hand_overs = HandOvers()
        self._fresh: list[Ticket] = []
        self._fresh_rows = 0
        self._again: deque[Ticket] = deque()
        self.rows_under_way = 0
        self._num_under_way = 0
        self._num_pausing = 0
        self._is_flush_due = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._agenda: Agenda[Call] = Agenda(is_open)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = inf
        self._next_id = 0
        self._inline_s = 0.0

    @property
    def num_waiting(self) -> int:
        return len(self._queue) + len(self._fresh) + len(self._again) + self._num_pausing

    @property
    def rows_waiting(self) -> int:
        """Rows that no replica has room for, for now."""
        return self._queue.rows_waiting + sum([ticket.rows for ticket in self._again])

    @property
    def num_submitted(self) -> int:
        """Since it was made."""
        return self._next_id

    @property
    def is_idle(self) -> bool:
        return not self.num_waiting and not self._num_under_way

    def submit(self, call: Call, *, deadline_s: float, done: Callable[[Reply], None]) -> Ticket:
        """Have the call answered (`call_id` and `left_s` are set here), never before this returns.

        `done` gets the replica's reply, or one with the error that ended the call:
        DeadlineExceeded; Overloaded when too many wait; ShardLost when every attempt met a dying
        replica.
        """
        if self._fresh_rows >= self._batch_rows:
            # A turn may read hundreds of requests: a full batch of them is computed and answered
            # while it is warm in the cache, instead of waiting for the rest to be read.
            self._flush_fresh()
        self._next_id += 1
        call.call_id = self._next_id
        ticket = Ticket(
            payload=call,
            rows=call.rows,
            arrived_s=self._loop.time(),
            deadline_s=deadline_s,
            priority=call.priority,
            tenant=call.tenant,
            done=done,
            dispatcher=self,
        )
        self._fresh.append(ticket)
        self._fresh_rows += ticket.rows
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)
        return ticket

    async def run(self, call: Call, *, deadline_s: float) -> Reply:
        """The replica's answer. Raises: what the reply says; see `submit`."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        ticket = self.submit(call, deadline_s=deadline_s, done=partial(settle, future))
        try:
            reply = await future
        except asyncio.CancelledError:
            self.cancel(ticket)
            raise
        if reply.error is None:
            return reply
        try:
            raise reply.error
        finally:
            # The error's traceback holds this frame: what the frame holds must not lead back to
            # the error, or the request stays in memory until the next collection.
            del reply, future, ticket

    def cancel(self, ticket: Ticket) -> None:
        """See `Ticket.cancel`."""
        self._queue.withdraw(ticket)
        abandon(ticket)
        close(ticket)

    def _flush(self) -> None:
        self._is_flush_due = False
        self._flush_fresh()

    def _flush_fresh(self) -> None:
        fresh, self._fresh, self._fresh_rows = self._fresh, [], 0
        room = self.window_rows - self.rows_under_way
        if not len(self._queue) and not self._again and sum([t.rows for t in fresh]) <= room:
            # The usual case: nobody has to wait, so there is nothing to decide.
            for group in self._groups(self._in_time(fresh)):
                self._send(group)
                for ticket in group:
                    if ticket.flight is not None:
                        self._watch(ticket)
            return
        now_s = time.monotonic()
        for ticket in fresh:
            if ticket.is_open:
                self._enqueue(ticket, now_s)
        self._send_more()

    def _in_time(self, fresh: list[Ticket]) -> list[Ticket]:
        """Those that can be answered before their deadline: others may have waited in their
        sockets, and in this turn, until nobody wants the answer."""
        end_s = time.monotonic() + self._inline_s
        if min([ticket.deadline_s for ticket in fresh]) > end_s:
            return fresh
        # One for all of them: what is refused must cost less than what is answered.
        error = DeadlineExceeded(_TOO_LATE, retry_after_s=1)
        for ticket in fresh:
            if ticket.is_open and ticket.deadline_s <= end_s:
                self._on_refusal("estimated_wait")
                fail(ticket, error)
        return [ticket for ticket in fresh if ticket.is_open]

    def _groups(self, tickets: list[Ticket]) -> Iterable[list[Ticket]]:
        """As many calls a group as one envelope takes."""
        rows = 0
        group: list[Ticket] = []
        for ticket in tickets:
            if not ticket.is_open:
                continue
            if group and rows + ticket.rows > self._batch_rows:
                yield group
                group, rows = [], 0
            group.append(ticket)
            rows += ticket.rows
        if group:
            yield group

    def _enqueue(self, ticket: Ticket, now_s: float) -> None:
        call = ticket.payload
        ahead = self._queue.rows_ahead(call.priority, call.tenant, call.rows)
        verdict = self._hand_overs.admit(
            rows_ahead=ahead,
            rows_under_way=self.rows_under_way,
            window_rows=self.window_rows,
            left_s=ticket.deadline_s - now_s,
        )
        if isinstance(verdict, Reject):
            self._on_refusal("estimated_wait")
            message = f"Request timeout expired: {verdict.reason}"
            fail(ticket, DeadlineExceeded(message, retry_after_s=verdict.retry_after_s))
            return
        ticket.weight = weight_of(call)
        try:
            self._queue.push(ticket)
        except SquadronError as error:
            self._on_refusal("queue_full")
            fail(ticket, error)
        else:
            self._watch(ticket)

    def _send_more(self) -> None:
        """Hand over what the window has room for, those that met a death first and alone."""
        while self._again and self.rows_under_way < self.window_rows:
            ticket = self._again.popleft()
            if ticket.is_open:
                self._send([ticket])
        while len(self._queue) and self.rows_under_way < self.window_rows:
            decision = self._queue.decide(self._loop.time())
            for each in decision.dropped:
                self._on_refusal("queue_timeout")
                drop(each)
            if not isinstance(decision, Run):
                break
            group = [item for item in decision.batch if isinstance(item, Ticket) and item.is_open]
            for ticket in group:
                ticket.payload.waited_s = self._loop.time() - ticket.arrived_s
            if group:
                self._send(group)

    def _send(self, group: list[Ticket]) -> None:
        now_s = time.monotonic()
        calls = []
        for ticket in group:
            ticket.payload.left_s = ticket.deadline_s - now_s
            calls.append(ticket.payload)
        withdrawals = Withdrawals()
        try:
            replies = self._transport.send(calls, withdrawals)
        except Exception as error:
            logger.exception("a batch could not be sent: a bug of ours")
            for ticket in group:
                fail(ticket, EngineFailed(f"the batch was not sent: {type(error).__name__}"))
            return
        if isinstance(replies, list):
            deliver(group, replies)
            self._inline_s += INLINE_GAIN * (time.monotonic() - now_s - self._inline_s)
            return
        rows = sum([call.rows for call in calls])
        self.rows_under_way += rows
        self._num_under_way += len(group)
        task = self._loop.create_task(self._receive(group, replies, rows, now_s))
        flight = Flight(task=task, withdrawals=withdrawals, num_open=len(group))
        for ticket in group:
            ticket.flight = flight
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(
        self, group: list[Ticket], replies: Awaitable[list[Reply]], rows: int, sent_s: float
    ) -> None:
        try:
            found = await replies
            self._hand_overs.observe(time.monotonic() - sent_s)
            landed(group)
            deliver(group, found)
        except ShardLost as error:
            landed(group)
            self._retry(group, error)
        except SquadronError as error:
            landed(group)
            for ticket in group:
                fail(ticket, error)
        except Exception as error:
            # A bug on the way must not leave callers waiting; the name alone, no details.
            failed = EngineFailed(f"the replica's answer was lost: {type(error).__name__}")
            landed(group)
            for ticket in group:
                fail(ticket, failed)
            raise
        finally:
            self.rows_under_way -= rows
            self._num_under_way -= len(group)
            if self._again or len(self._queue):
                self._send_more()

    def _retry(self, group: list[Ticket], error: ShardLost) -> None:
        """Inference changes nothing, so it is safe to run it again."""
        alive = [ticket for ticket in group if ticket.is_open]
        self._on_retry(len(alive))
        for ticket in alive:
            ticket.attempts += 1
            if ticket.attempts >= MAX_ATTEMPTS:
                fail(ticket, error)
            else:
                pause_s = 0.0 if ticket.attempts == 1 else 0.1 * 2 ** (ticket.attempts - 2)
                self._num_pausing += 1
                self._loop.call_later(pause_s, self._put_back, ticket)

    def _put_back(self, ticket: Ticket) -> None:
        self._num_pausing -= 1
        self._again.append(ticket)
        self._send_more()

    def _watch(self, ticket: Ticket) -> None:
        """One timer for all that wait or are under way, set for the first deadline of them. Once a
        ticket: as it goes on to the queue, or past it to a replica."""
        num_open = len(self._queue) + self._num_under_way
        self._agenda.add(ticket.deadline_s, ticket, num_open)
        if ticket.deadline_s < self._timer_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_s = ticket.deadline_s
            self._timer = self._loop.call_at(ticket.deadline_s, self._expire)

    def _expire(self) -> None:
        # uvloop's clock stands still for a millisecond: a timer may fire just before its time.
        for item in self._agenda.due(self._loop.time() + 0.001):
            assert isinstance(item, Ticket)
            self._queue.withdraw(item)
            self._on_refusal("deadline")
            fail(item, DeadlineExceeded(_EXPIRED))
            abandon(item)
        self._timer_s = self._agenda.next_s()
        self._timer = None
        if self._timer_s < inf:
            self._timer = self._loop.call_at(self._timer_s, self._expire)
