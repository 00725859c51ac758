"""Batches between processes of one node: a Unix socket a replica, many batches in flight on it.

Frame, little-endian: u32 bytes of what follows | u64 number of the exchange | envelope. From a
replica, an empty frame of the last number says goodbye: it is draining, send it nothing more. From
a door, an empty frame calls the exchange of its number back: nobody waits for the answer; one with
the bit `_WITHDRAWN` names a call (u64) of it that nobody waits for.

A large envelope lies in shared memory, and its frame says where (`actors.delivery.shelf`). With its
first one an end asks whether the other can read its memory; until it hears so, and where it cannot,
envelopes go through the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from actors.delivery.shelf import MIN_BYTES, Reader, Shelf
from actors.delivery.withdrawals import Withdrawals
from cluster.errors import ShardLost

_HEAD = struct.Struct("<IQ")
_GOODBYE = 2**64 - 1
_HELLO = 2**64 - 2
"""Try whether you can read here."""
_WELCOME = 2**64 - 3
"""I can."""
_RELEASE = 2**64 - 4
"""I look at that segment no more."""
_ON_SHELF = 1 << 62
"""Beside the number: the frame says where the envelope lies."""
_WITHDRAWN = 1 << 61
_SEGMENT = struct.Struct("<i")
_CALL = struct.Struct("<Q")
MAX_FRAME_BYTES = 2**31
RESCAN_S = 0.5
"""How often a door looks for replicas that came; those that go are noticed at once."""

logger = logging.getLogger("squadron.link")

Frame = bytes | memoryview
Answer = Callable[[Frame, Withdrawals], Awaitable[bytes]]


class _Frames(asyncio.Protocol):
    """Cuts a byte stream into frames. Both ends are one of these."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._needed = 0
        self._loop = asyncio.get_running_loop()
        self.shelf = Shelf()
        self._reader = Reader(self._give_back)
        self._has_asked = False
        self._is_read_there = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's own class

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= max(_HEAD.size, self._needed):
            size, number = _HEAD.unpack_from(self._buffer)
            if size > MAX_FRAME_BYTES:
                self.close()
                return
            self._needed = _HEAD.size + size
            if len(self._buffer) < self._needed:
                return
            frame = bytes(memoryview(self._buffer)[_HEAD.size : self._needed])
            del self._buffer[: self._needed]
            self._needed = 0
            if number < _ON_SHELF or number == _GOODBYE:
                self.frame_received(number, frame)
            else:
                self._shelf_received(number, frame)

    def frame_received(self, number: int, frame: Frame) -> None:
        raise NotImplementedError

    def write_frame(self, number: int, frame: bytes) -> None:
        if len(frame) >= MIN_BYTES:
            note = self._shelved(frame)
            if note is not None:
                number, frame = number | _ON_SHELF, note
        self._write(number, frame)

    def connection_lost(self, error: Exception | None) -> None:
        self._is_read_there = False
        self.shelf.close()

    def _write(self, number: int, frame: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.writelines((_HEAD.pack(len(frame), number), frame))

    def _shelved(self, frame: bytes) -> bytes | None:
        if self._is_read_there:
            return self.shelf.put(frame)
        if not self._has_asked:
            self._has_asked = True
            hello = self.shelf.hello()
            if hello is not None:
                self._write(_HELLO, hello)
        return None

    def _shelf_received(self, number: int, frame: bytes) -> None:
        if number == _HELLO:
            if self._reader.try_out(frame):
                self._write(_WELCOME, b"")
        elif number == _WELCOME:
            self._is_read_there = True
        elif number == _RELEASE:
            self.shelf.release(_SEGMENT.unpack(frame)[0])
        else:
            try:
                view = self._reader.take(frame)
            except OSError:
                # Its writer has just died: what was under way is lost, as when the socket ends.
                self.close()
                return
            self.frame_received(number & ~_ON_SHELF, view)

    def _give_back(self, segment: int) -> None:
        """In any thread, whenever the last view goes."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all its ends with it
            self._loop.call_soon_threadsafe(self._write, _RELEASE, _SEGMENT.pack(segment))

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class NodeListener:
    """The replica's end: answers every frame of every door of the node."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = path
        self._answer = answer
        self._doors: set[_Door] = set()
        self._tasks: dict[tuple[_Door, int], asyncio.Task[None]] = {}
        self._withdrawals: dict[tuple[_Door, int], Withdrawals] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        # Bound under another name and renamed: a door never meets a socket that does not listen.
        hidden = self.path.with_suffix(".new")
        self._server = await loop.create_unix_server(lambda: _Door(self), str(hidden), backlog=64)
        hidden.rename(self.path)

    async def drain(self) -> None:
        """Say goodbye, finish what came, close. Nothing that was accepted is lost."""
        self.path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        for door in self._doors:
            door.write_frame(_GOODBYE, b"")
        # Frames that were on their way when we said goodbye arrive within a turn or two.
        await asyncio.sleep(0.1)
        while self._tasks:
            await asyncio.wait(self._tasks.values())
        for door in list(self._doors):
            door.close()

    def serve(self, door: _Door, number: int, frame: Frame) -> None:
        exchange = (door, number)
        if not len(frame):
            if exchange in self._tasks:
                self._tasks[exchange].cancel()
            return
        withdrawals = self._withdrawals[exchange] = Withdrawals()
        reply = self._reply(door, number, frame, withdrawals)
        task = asyncio.get_running_loop().create_task(reply)
        self._tasks[exchange] = task
        task.add_done_callback(lambda _: self._ended(exchange))

    def withdraw(self, door: _Door, number: int, frame: Frame) -> None:
        """Nobody waits for one call of the exchange, which may have been answered already."""
        withdrawals = self._withdrawals.get((door, number))
        if withdrawals is not None and len(frame) == _CALL.size:
            withdrawals.add(_CALL.unpack(frame)[0])

    def _ended(self, exchange: tuple[_Door, int]) -> None:
        self._tasks.pop(exchange, None)
        self._withdrawals.pop(exchange, None)

    async def _reply(
        self, door: _Door, number: int, frame: Frame, withdrawals: Withdrawals
    ) -> None:
        try:
            door.write_frame(number, await self._answer(frame, withdrawals))
        except Exception:
            # A bug of ours: closing tells the door, which runs its calls elsewhere or gives up.
            logger.exception("an envelope could not be answered")
            door.close()

    def joined(self, door: _Door) -> None:
        self._doors.add(door)

    def left(self, door: _Door) -> None:
        self._doors.discard(door)
        # A door that is gone reads no answers; its callers ask another one.
        for (asked_by, _), task in list(self._tasks.items()):
            if asked_by is door:
                task.cancel()


class _Door(_Frames):
    """One door's connection, seen from the replica."""

    def __init__(self, listener: NodeListener) -> None:
        super().__init__()
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.joined(self)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._listener.left(self)

    def frame_received(self, number: int, frame: Frame) -> None:
        if number & _WITHDRAWN:
            self._listener.withdraw(self, number & ~_WITHDRAWN, frame)
        else:
            self._listener.serve(self, number, frame)


class NodeLink(_Frames):
    """The door's end of one replica's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.is_open = True
        self._next_number = 0
        self._open: dict[int, asyncio.Future[Frame]] = {}

    @property
    def name(self) -> str:
        """The replica's own, the same at every door."""
        return self.path.name

    @property
    def num_open(self) -> int:
        """Batches under way on this link."""
        return len(self._open)

    async def exchange(self, frame: bytes, withdrawals: Withdrawals | None = None) -> Frame:
        """Raises: ShardLost when the replica goes before it answers."""
        if not self.is_open:
            raise ShardLost("the replica has left")
        self._next_number += 1
        number = self._next_number
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._open[number] = future
        self.write_frame(number, frame)
        if withdrawals is not None:
            withdrawals.follow(partial(self._withdraw, number))
        try:
            return await future
        except asyncio.CancelledError:
            self.write_frame(number, b"")
            raise
        finally:
            self._open.pop(number, None)

    def _withdraw(self, number: int, call_id: int) -> None:
        if number in self._open:
            self._write(number | _WITHDRAWN, _CALL.pack(call_id))

    def frame_received(self, number: int, frame: Frame) -> None:
        if number == _GOODBYE:
            self.is_open = False
            return
        future = self._open.get(number)
        if future is not None and not future.done():
            future.set_result(frame)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.is_open = False
        for future in self._open.values():
            if not future.done():
                future.set_exception(ShardLost("the replica's process is gone"))


class NodeLinks:
    """The replicas of one variant on this node, as one door knows them."""

    def __init__(self, folder: Path, *, rescan_s: float = RESCAN_S) -> None:
        self._folder = folder
        self._rescan_s = rescan_s
        self._links: dict[Path, NodeLink] = {}
        self._scanned_s = float("-inf")
        self._scanning: asyncio.Task[None] | None = None

    async def least_busy(self) -> NodeLink | None:
        """The replica with the fewest batches under way; None when this node has none."""
        return min(await self.live(), key=lambda link: link.num_open, default=None)

    async def live(self) -> list[NodeLink]:
        """The replicas that can be sent to; what came is found within `rescan_s`."""
        loop = asyncio.get_running_loop()
        links = self._live()
        if loop.time() - self._scanned_s >= self._rescan_s:
            self._scanned_s = loop.time()
            self._scanning = loop.create_task(self._scan())
        if not links and self._scanning is not None and not self._scanning.done():
            # Nothing to choose from yet: what is being looked for may be there.
            await asyncio.shield(self._scanning)
            links = self._live()
        return links

    def close(self) -> None:
        for link in self._links.values():
            link.close()

    def _live(self) -> list[NodeLink]:
        return [link for link in self._links.values() if link.is_open]

    async def _scan(self) -> None:
        for path, link in list(self._links.items()):
            if not link.is_open and link.num_open == 0:
                del self._links[path]
        for path in self._sockets():
            if path not in self._links:
                await self._connect(path)

    def _sockets(self) -> list[Path]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return [self._folder / name for name in sorted(names) if name.endswith(".sock")]

    async def _connect(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_unix_connection(lambda: NodeLink(path), str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            # Left behind by a killed process.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        self._links[path] = link


def replica_folder(node_folder: Path, app: str, deployment: str) -> Path:
    """Where the replicas of one deployment put their sockets.

    A digest stands for the names: a Unix socket's path may have 107 bytes in all.
    """
    digest = hashlib.sha256(f"{app}\0{deployment}".encode()).hexdigest()[:8]
    return node_folder / "links" / digest
