"""How the calls of a queue get their replies."""

from __future__ import annotations

from actors.batching.runner import Work
from cluster.errors import DeadlineExceeded, SquadronError
from cluster.protocols.envelope import Reply
from cluster.scheduling.decision import Dropped, Queued


def answer(item: Queued[Work], reply: Reply) -> None:
    future = item.payload.future
    if future is not None and not future.done():
        future.set_result(reply)


def gone() -> SquadronError:
    """For a reply that nobody reads."""
    return DeadlineExceeded("the caller is gone")


def dropped_reply(drop: Dropped[Work]) -> Reply:
    return Reply(call_id=drop.item.payload.call.call_id, error=drop.error())


def answer_all(batch: tuple[Queued[Work], ...], replies: list[Reply]) -> None:
    for item, reply in zip(batch, replies, strict=True):
        answer(item, reply)
