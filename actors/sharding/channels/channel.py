"""One direction between two shards, whatever carries it."""

from __future__ import annotations

from typing import Protocol

from actors.sharding.channels.message import Message


class Channel(Protocol):
    """One end sends, the other receives; messages arrive in order. Each end is used by one thread.

    Raises: ShardLost when the other end is gone, or the channel was closed, also while it waits.
    """

    def send(self, message: Message) -> None:
        """Returns when the message's memory may be changed; waits while too much is under way."""

    def receive(self) -> Message: ...

    def close(self) -> None:
        """From any thread: ends a `send` or `receive` that waits."""
