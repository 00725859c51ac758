"""How much a turn of the loop reads while more connections are ready than libuv asks for at once.

On uvloop, as doors run: asyncio's own loop handles each set of ready sockets in a turn of its own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import uvloop

from actors.listeners.http_messages import HttpReply, HttpRequest
from tests.actors.listeners.test_http import Echo, listening, post

NUM_CONNECTIONS = 1100
"""More than the 1024 that libuv asks the kernel for."""
NUM_REQUESTS = 8 * NUM_CONNECTIONS
BATCH = 64


class Eager(Echo):
    """Answers in batches, inside a turn, as a door does. Whoever is read has the next request ready
    at once, so that no poll ever finds a socket empty."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[socket.socket] = []
        self.runs: list[int] = []
        self._num_since = 0
        self._waiting: list[Callable[[HttpReply], None]] = []

    def begin(
        self, request: HttpRequest, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        if not self._num_since:
            asyncio.get_running_loop().call_soon(self._turn)
        self._num_since += 1
        if len(self._waiting) >= BATCH:
            self._answer()
        self._waiting.append(done)
        self.num_begun += 1
        if self.num_begun <= NUM_REQUESTS - NUM_CONNECTIONS:
            self.clients[int(request.body)].send(post("/", request.body))
        return self._cancel

    def _turn(self) -> None:
        self.runs.append(self._num_since)
        self._num_since = 0
        self._answer()
        if self.num_begun == NUM_REQUESTS:
            self.has_begun.set()

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(HttpReply(status=200, chunks=(b"ok",)))


async def _reads_a_turn(folder: Path) -> list[int]:
    eager = Eager()
    async with listening(folder, eager) as (_, _, port):
        for _ in range(NUM_CONNECTIONS):
            client = socket.create_connection(("127.0.0.1", port))
            eager.clients.append(client)
            await asyncio.sleep(0)
        for number, client in enumerate(eager.clients):
            client.send(post("/", str(number).encode()))
        await asyncio.wait_for(eager.has_begun.wait(), 60)
        for client in eager.clients:
            client.close()
    return eager.runs


def test_more_ready_connections_than_a_poll_returns_do_not_hold_up_the_loop(tmp_path: Path) -> None:
    runs = uvloop.run(_reads_a_turn(tmp_path))

    assert sum(runs) == NUM_REQUESTS
    # Without bounds all of it is one turn. With them each connection is read twice at most.
    assert max(runs) <= 2 * NUM_CONNECTIONS
