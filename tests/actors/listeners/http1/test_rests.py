"""Whose request is refused while turns take long is left alone for as long as the refusal says."""

from __future__ import annotations

import asyncio

import pytest

from actors.listeners.http1 import turns as module
from actors.listeners.http1.turns import LONG_S, Turns


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
    """Stands still between the test's steps, whatever the machine does."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def turns_after(seconds: float) -> tuple[Turns, Clock]:
    """After one turn that took so long."""
    clock = Clock()
    turns = Turns(clock)
    turns.read(Connection())
    clock.now_s += seconds
    await asyncio.sleep(0)
    return turns, clock


async def test_a_refusal_in_quick_turns_pauses_nobody() -> None:
    turns, _ = await turns_after(0.001)
    connection = Connection()

    turns.refused(connection)
    turns.read(Connection())
    turns.refused(connection)

    assert connection.said == []


async def test_a_deadline_that_passes_while_nobody_asks_pauses_nobody() -> None:
    for took_s in (0.001, 2 * LONG_S):
        turns, clock = await turns_after(took_s)
        connection = Connection()
        clock.now_s += 2 * LONG_S

        turns.refused(connection)

        assert connection.said == []


async def test_a_turn_may_be_long_before_it_ends() -> None:
    turns, clock = await turns_after(0.001)
    connection = Connection()
    turns.read(Connection())
    clock.now_s += 2 * LONG_S

    turns.refused(connection)

    assert connection.said == ["pause"]


async def test_a_refusal_in_long_turns_is_a_rest_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_S", 0.05)
    turns, clock = await turns_after(2 * LONG_S)
    first, second = Connection(), Connection()

    turns.refused(first)
    clock.now_s += LONG_S / 2
    turns.refused(second)
    assert (first.said, second.said) == (["pause"], ["pause"])
    clock.now_s += 0.05
    await asyncio.wait_for(second.is_resumed.wait(), 30)

    assert (first.said, second.said) == (["pause", "resume"], ["pause", "resume"])
