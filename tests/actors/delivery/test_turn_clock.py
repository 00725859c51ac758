"""When requests came to their sockets, on a loop whose time is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from actors.delivery.turn_clock import TurnClock


class Loop:
    """Its clock, and what it was asked to call."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def end_turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


def clock() -> tuple[Loop, TurnClock]:
    loop = Loop()
    return loop, TurnClock(cast(asyncio.AbstractEventLoop, loop))


def test_after_a_sleep_a_request_has_just_come_and_all_of_its_turn_came_with_it() -> None:
    loop, turns = clock()

    assert turns.arrived_s() == 100.0
    loop.now_s = 100.3
    assert turns.arrived_s() == 100.0
    loop.end_turn()
    loop.now_s = 101.0

    assert turns.arrived_s() == 101.0


def test_behind_a_turn_that_took_long_a_request_waited_for_half_of_it() -> None:
    loop, turns = clock()
    turns.arrived_s()
    loop.now_s = 100.4
    loop.end_turn()
    loop.now_s = 100.401

    assert turns.arrived_s() == (100.0 + 100.401) / 2
    assert len(loop.soon) == 1
