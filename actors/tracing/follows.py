"""What a door shows its requests to, if anything: their traces, their lines in the log."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol, TypeVar

from cluster.requests import InferenceRequest

Found = TypeVar("Found")


class Follows(Protocol):
    """Bound to one front door, on its loop."""

    def began(self, request: InferenceRequest) -> None:
        """A request came in; with `request.follower` set here its end is told too."""
        ...

    async def member(
        self, request: InferenceRequest, work: Awaitable[Found], name: str = "member"
    ) -> Found:
        """Does the work of a call that another request led to. `name`: what kind of call."""
        ...
