"""Many requests of one stream under way at once, their answers in the order they were asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

MAX_UNDER_WAY = 64
"""Of one stream; a caller that sends more waits, its transport holds it back."""


class InOrder(Generic[Asked, Answer]):
    """Reads `requests` and works on them; iterate it for the answers. Leaving it cancels all that
    is under way: its caller is gone."""

    def __init__(
        self,
        requests: AsyncIterator[Asked],
        work: Callable[[Asked], Coroutine[None, None, Answer]],
    ) -> None:
        self._requests = requests
        self._work = work
        self._tasks: asyncio.Queue[asyncio.Task[Answer] | None] = asyncio.Queue()
        # Held from the reading of a request until its answer has been taken.
        self._room = asyncio.Semaphore(MAX_UNDER_WAY)
        self._running: set[asyncio.Task[Answer]] = set()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> InOrder[Asked, Answer]:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._reading is not None
        under_way = [self._reading, *self._running]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def __aiter__(self) -> AsyncIterator[Answer]:
        assert self._reading is not None
        while (task := await self._tasks.get()) is not None:
            yield await task
            self._room.release()
        await self._reading

    async def _read(self) -> None:
        try:
            async for asked in self._requests:
                task = asyncio.create_task(self._work(asked))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                self._tasks.put_nowait(task)
                # Not until the next one comes, which may be long.
                del asked, task
                await self._room.acquire()
        finally:
            # When the reading fails, what was read is still answered; then its error shows.
            self._tasks.put_nowait(None)
