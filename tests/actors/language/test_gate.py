from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from actors.language.gate import Turnstile
from cluster.config.language.settings import PromptQueueConfig


async def test_an_engine_is_busy_by_the_share_of_its_places() -> None:
    now_s = 0.0
    turns = Turnstile(PromptQueueConfig(), places=4, clock=lambda: now_s)

    now_s = 10.0
    async with AsyncExitStack() as open_turns:
        await open_turns.enter_async_context(turns.turn(num_choices=1, num_tokens=5))
        now_s = 12.0
        await open_turns.enter_async_context(turns.turn(num_choices=3, num_tokens=5))
        now_s = 15.0
        while_running = turns.busy_s
    now_s = 20.0

    assert while_running == 2 * 0.25 + 3 * 1.0
    assert turns.busy_s == while_running
    assert turns.num_served == 2


async def test_who_left_while_waiting_was_not_served() -> None:
    turns = Turnstile(PromptQueueConfig(), places=1)

    async def ask() -> None:
        async with turns.turn(num_choices=1, num_tokens=1):
            raise AssertionError("there is one place, and it is taken")

    async with turns.turn(num_choices=1, num_tokens=1):
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert turns.num_served == 0
    assert turns.num_served == 1
