"""One `ModelStreamInfer` call: many requests in, their responses out, each as soon as it may be.

Requests to ordinary models are answered in the order they came; the responses of decoupled ones
come as the model makes them, beside all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass

from actors.listeners.in_order import MAX_UNDER_WAY, InOrder
from cluster.errors import DeadlineExceeded, SquadronError

MAX_READY = 16
"""Responses that wait for the caller's transport; then nothing more is taken from the models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamError:
    """What went wrong with one request of a stream. `told`: in headers where there are any."""

    error: SquadronError
    request_id: str
    told: Sequence[tuple[str, str]] = ()


Response = bytes | StreamError
Many = AsyncGenerator[Response, None]
Answer = Callable[[bytes], Coroutine[None, None, Response | Many]]
"""A request's message -> its one response, or the responses of a decoupled model."""


class GrpcStream:
    """Iterate `responses`; leaving it ends all that is under way: its caller is gone. So does
    taking none of them for `patience_s` while there are some."""

    def __init__(
        self, requests: AsyncIterator[bytes], answer: Answer, *, patience_s: float = 30.0
    ) -> None:
        self._requests = requests
        self._answer = answer
        self._patience_s = patience_s
        self._num_given = 0
        self._is_giving = False
        self._is_given_up = False
        self._ready: asyncio.Queue[Response | None] = asyncio.Queue(MAX_READY)
        self._room = asyncio.Semaphore(MAX_UNDER_WAY)
        self._many: set[asyncio.Task[None]] = set()

    async def responses(self) -> Many:
        """Raises: DeadlineExceeded, when its caller reads again that was given up."""
        ordered = asyncio.create_task(self._ordered())
        watching = asyncio.create_task(self._give_up(ordered))
        try:
            while (response := await self._ready.get()) is not None:
                self._num_given += 1
                self._is_giving = True
                yield response
                self._is_giving = False
                if self._is_given_up:
                    raise DeadlineExceeded(
                        f"nothing was read for {self._patience_s:g} s (limits.send_timeout_s)"
                    )
            await ordered
        finally:
            under_way = [ordered, watching, *self._many]
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _give_up(self, ordered: asyncio.Task[None]) -> None:
        """End what is under way once nothing is read. The call itself stays until its caller reads
        or leaves: gRPC offers no way to end one that cannot be written to."""
        num_given = -1
        while not self._is_giving or num_given != self._num_given:
            num_given = self._num_given
            await asyncio.sleep(self._patience_s)
        self._is_given_up = True
        for task in (ordered, *self._many):
            task.cancel()
        while not self._ready.empty():
            self._ready.get_nowait()

    async def _ordered(self) -> None:
        try:
            async with InOrder(self._requests, self._one) as answers:
                async for answer in answers:
                    if answer is not None:
                        await self._ready.put(answer)
            while self._many:
                done, _ = await asyncio.wait(self._many)
                for task in done:
                    task.result()
        except asyncio.CancelledError:
            # Nobody takes anything any more: to wait for room would be for ever.
            raise
        except BaseException:
            await self._ready.put(None)
            raise
        await self._ready.put(None)

    async def _one(self, data: bytes) -> Response | None:
        """None for a decoupled model: its responses have a task of their own from here on."""
        answer = await self._answer(data)
        if isinstance(answer, bytes | StreamError):
            return answer
        await self._room.acquire()
        task = asyncio.create_task(self._pass_on(answer))
        self._many.add(task)
        task.add_done_callback(self._many.discard)
        return None

    async def _pass_on(self, responses: Many) -> None:
        try:
            async for response in responses:
                await self._ready.put(response)
        finally:
            await responses.aclose()
            self._room.release()
