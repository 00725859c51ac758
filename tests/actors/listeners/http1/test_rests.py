"""Whose request is refused while turns take long is left alone for as long as the refusal says."""

from __future__ import annotations

import asyncio

import pytest

from actors.listeners.http1 import turns as module
from actors.listeners.http1.turns import LONG_S, Turns

PATIENCE_S = 60.0


class Connection:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.is_resumed = asyncio.Event()

    def pause(self) -> None:
        self.said.append("pause")

    def resume(self) -> None:
        self.said.append("resume")
        self.is_resumed.set()


class Clock:
    """Stands still while a busy machine does not."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def after_a_turn(turns: Turns, clock: Clock, seconds: float) -> None:
    turns.read(Connection())
    clock.now_s += seconds
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("last_s", "this_s", "said"),
    [
        (0.0, 0.0, []),
        (0.9 * LONG_S, 0.9 * LONG_S, []),
        (1.1 * LONG_S, 0.0, ["pause"]),
        (0.0, 1.1 * LONG_S, ["pause"]),
    ],
)
async def test_a_refusal_in_quick_turns_pauses_nobody(
    last_s: float, this_s: float, said: list[str]
) -> None:
    """Long is the turn before, or already this one."""
    clock = Clock()
    turns, connection = Turns(clock), Connection()
    await after_a_turn(turns, clock, last_s)
    turns.read(Connection())
    clock.now_s += this_s

    turns.refused(connection)

    assert connection.said == said


async def test_a_refusal_in_long_turns_is_a_rest_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    rest_s = 0.05
    monkeypatch.setattr(module, "REST_S", rest_s)
    clock = Clock()
    turns, first, second = Turns(clock), Connection(), Connection()
    await after_a_turn(turns, clock, 2 * LONG_S)

    turns.refused(first)
    clock.now_s += rest_s / 2
    turns.refused(second)
    assert (first.said, second.said) == (["pause"], ["pause"])
    clock.now_s += rest_s / 2
    await asyncio.wait_for(first.is_resumed.wait(), PATIENCE_S)
    assert (first.said, second.said) == (["pause", "resume"], ["pause"])
    clock.now_s += rest_s / 2
    await asyncio.wait_for(second.is_resumed.wait(), PATIENCE_S)

    assert (first.said, second.said) == (["pause", "resume"], ["pause", "resume"])
