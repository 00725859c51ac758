"""Calls of an envelope under way that nobody waits for any more, told to whoever has it now."""

from __future__ import annotations

from collections.abc import Callable


class Withdrawals:
    """Of one envelope. Whoever takes it over says with `follow` whom to tell from then on."""

    __slots__ = ("_gone", "_tell")

    def __init__(self) -> None:
        self._gone: set[int] = set()
        self._tell: Callable[[int], None] | None = None

    def __contains__(self, call_id: int) -> bool:
        return call_id in self._gone

    def add(self, call_id: int) -> None:
        """The caller of this call has left."""
        self._gone.add(call_id)
        if self._tell is not None:
            self._tell(call_id)

    def follow(self, tell: Callable[[int], None]) -> None:
        """Call `tell` for each that left, now and later; who was told before is not any more."""
        self._tell = tell
        for call_id in self._gone:
            tell(call_id)
