"""Streams between processes of one node: a Unix socket a replica, a connection a stream.

Frame, little-endian: u32 bytes of what follows | envelope. The door sends one frame, the call, and
then one byte for every response it has taken, some at a time; the replica sends a frame a response
and, when the stream is complete, an empty one. A connection that ends before it is a replica that
died, or a door that has gone: the replica ends the model's work at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from cluster.errors import ShardLost

_SIZE = struct.Struct("<I")
_TAKEN = b"\x01"
MAX_FRAME_BYTES = 2**31
WINDOW = 16
"""Responses that may be on their way or wait for a slow reader; then the model is not advanced."""
TAKEN_AT_ONCE = WINDOW // 2
"""Responses that a door tells of together: a write a token would wake both sides for nothing."""
SUFFIX = ".streams"

logger = logging.getLogger("squadron.link")

Open = Callable[[bytes], AsyncGenerator[bytes, None]]


class StreamListener:
    """The replica's end. `open_stream` makes the stream of a call; it is closed when it is done,
    or when its door has gone."""

    def __init__(self, path: Path, open_stream: Open) -> None:
        self.path = path
        self._open = open_stream
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Bound under another name and renamed: a door never meets a socket that does not listen.
        hidden = self.path.with_suffix(".new-streams")
        self._server = await asyncio.start_unix_server(self._serve, str(hidden), backlog=64)
        hidden.rename(self.path)

    async def drain(self) -> None:
        """Take no more streams, finish those that are open."""
        self.path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        while self._serving:
            await asyncio.wait(self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            message = await _read(reader)
            if message:
                await self._answer(message, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The door has gone; what it asked for is ended.
        except Exception:
            logger.exception("a stream could not be answered")
        finally:
            self._serving.discard(task)
            writer.close()

    async def _answer(
        self, message: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        room = asyncio.Semaphore(WINDOW)
        sending = asyncio.ensure_future(self._send(message, writer, room))
        watching = asyncio.ensure_future(_watch(reader, room))
        both = (sending, watching)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and sending.exception() is None:
                # The door hangs up when it has read the end. Hanging up first would break the
                # connection under the bytes that it still writes, and with it what it has not read.
                await watching
        finally:
            for work in both:
                work.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        if not sending.cancelled() and sending.exception() is not None:
            raise sending.exception()  # type: ignore[misc]

    async def _send(
        self, message: bytes, writer: asyncio.StreamWriter, room: asyncio.Semaphore
    ) -> None:
        async with contextlib.aclosing(self._open(message)) as parts:
            await room.acquire()
            async for part in parts:
                _write(writer, part)
                await writer.drain()
                # Room before the next response is made, not after.
                await room.acquire()
        _write(writer, b"")
        await writer.drain()


async def _watch(reader: asyncio.StreamReader, room: asyncio.Semaphore) -> None:
    """Until the door goes; a byte is a response taken."""
    while taken := await reader.read(256):
        for _ in taken:
            room.release()


async def open_stream(path: Path, message: bytes) -> AsyncGenerator[bytes, None]:
    """The door's end: the responses, one envelope each. Leaving it early ends the stream.

    Raises: ConnectionRefusedError, FileNotFoundError before anything was sent; ShardLost when the
    replica goes before the stream is complete.
    """
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        _write(writer, message)
        num_taken = 0
        while part := await _read(reader):
            yield part
            num_taken += 1
            if num_taken == TAKEN_AT_ONCE:
                writer.write(_TAKEN * num_taken)
                num_taken = 0
    except (ConnectionError, asyncio.IncompleteReadError):
        raise ShardLost("the replica's process is gone: the stream is not complete") from None
    finally:
        writer.close()


def _write(writer: asyncio.StreamWriter, part: bytes) -> None:
    writer.writelines((_SIZE.pack(len(part)), part))


async def _read(reader: asyncio.StreamReader) -> bytes:
    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
    if size > MAX_FRAME_BYTES:
        raise ConnectionError(f"a frame of {size} bytes")
    return await reader.readexactly(size)
