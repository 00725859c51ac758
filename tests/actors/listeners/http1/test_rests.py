"""Whose request is refused while turns take long is left alone for as long as the refusal says."""

from __future__ import annotations

import asyncio
import time

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


async def after_a_turn(turns: Turns, seconds: float) -> None:
    turns.read(Connection())
    time.sleep(seconds)  # noqa: ASYNC251 - the turn takes that long
    await asyncio.sleep(0)


async def test_a_refusal_in_quick_turns_pauses_nobody() -> None:
    turns, connection = Turns(), Connection()
    await after_a_turn(turns, 0.0)

    turns.refused(connection)

    assert connection.said == []


async def test_a_refusal_in_long_turns_is_a_rest_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_S", 0.05)
    turns, first, second = Turns(), Connection(), Connection()
    await after_a_turn(turns, 2 * LONG_S)

    turns.refused(first)
    await asyncio.sleep(0.02)
    turns.refused(second)
    assert (first.said, second.said) == (["pause"], ["pause"])
    await asyncio.wait_for(second.is_resumed.wait(), 5)

    assert (first.said, second.said) == (["pause", "resume"], ["pause", "resume"])
