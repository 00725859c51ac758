"""A call on its way from a door to a replica, and the ways on which it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.delivery.withdrawals import Withdrawals
from cluster.errors import SquadronError
from cluster.protocols.envelope import Call, Reply
from cluster.scheduling.decision import Dropped, Queued

if TYPE_CHECKING:
    from actors.delivery.dispatch import Dispatcher


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """An envelope under way, and how many of its calls somebody still waits for."""

    task: asyncio.Task[None]
    withdrawals: Withdrawals
    num_open: int


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket(Queued[Call]):
    """A call on its way. Times are on the loop's clock; `done` is called once, on the loop."""

    done: Callable[[Reply], None]
    attempts: int = 0
    is_open: bool = True
    flight: Flight | None = None
    dispatcher: Dispatcher

    def cancel(self) -> None:
        """The caller is gone: `done` is not called. What does not run yet is not run, neither here
        nor in the replica."""
        self.dispatcher.cancel(self)


def is_open(item: Queued[Call]) -> bool:
    assert isinstance(item, Ticket)
    return item.is_open


def landed(group: list[Ticket]) -> None:
    for ticket in group:
        ticket.flight = None


def abandon(ticket: Ticket) -> None:
    """Nobody waits for this call any more; its envelope is called back with its last one."""
    flight, ticket.flight = ticket.flight, None
    if flight is not None:
        flight.num_open -= 1
        if flight.num_open:
            flight.withdrawals.add(ticket.payload.call_id)
        else:
            # A task cancelled before its first step never enters its `try`, and would keep its
            # rows in the window for ever. The step was scheduled before this is.
            flight.task.get_loop().call_soon(flight.task.cancel)


def settle(future: asyncio.Future[Reply], reply: Reply) -> None:
    # Cancelled, but its task has not had its turn yet to say so.
    if not future.done():
        future.set_result(reply)


def weight_of(call: Call) -> float:
    """What the tenant is charged for its turn: of texts their bytes (their tokens are counted in
    the replica, for its own turns), of anything else its numbers, so that a row of many tokens is
    more than one of few."""
    texts = [t.num_bytes for t in call.inputs if t.datatype == "BYTES"]
    return float(sum(texts) or sum([t.array.size for t in call.inputs]) or call.rows)


def drop(drop: Dropped[Call]) -> None:
    assert isinstance(drop.item, Ticket)
    fail(drop.item, drop.error())


def fail(ticket: Ticket, error: SquadronError) -> None:
    # The frames that raised it hold the group, and so the error itself.
    error.__traceback__ = None
    _finish(ticket, Reply(call_id=ticket.payload.call_id, error=error))


def _finish(ticket: Ticket, reply: Reply) -> None:
    if ticket.is_open:
        done = ticket.done
        close(ticket)
        done(reply)


def close(ticket: Ticket) -> None:
    """The agenda knows it until its time or the next tidying: its tensors and its caller go now."""
    ticket.is_open = False
    ticket.payload.inputs = ()
    ticket.done = _nobody


def _nobody(reply: Reply) -> None:
    """Whom a reply goes to that nobody waits for."""


def deliver(group: list[Ticket], replies: list[Reply]) -> None:
    by_id = {reply.call_id: reply for reply in replies}
    for ticket in group:
        _finish(ticket, by_id[ticket.payload.call_id])
