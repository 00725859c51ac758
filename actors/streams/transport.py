"""How a call reaches a decoupled model's replica, and how its responses come back."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Protocol

from ray.exceptions import RayActorError, WorkerCrashedError

from actors.delivery.serve_handle import ServeHandle
from actors.streams.link import SUFFIX, open_stream
from cluster.errors import ShardLost
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls


class StreamTransport(Protocol):
    """Raises: ShardLost when the replica died before the stream was complete."""

    def stream(self, call: Call) -> AsyncGenerator[Reply, None]: ...


class HandleStreams:
    """Through Ray Serve, which reaches other nodes. Serve buffers what its reader has not taken:
    here the stream's deadline is the only bound of a slow reader."""

    def __init__(self, deployment: str, app: str) -> None:
        self._deployment = deployment
        self._handle = ServeHandle(deployment, app, method_name="stream", stream=True)

    async def stream(self, call: Call) -> AsyncGenerator[Reply, None]:
        responses = (await self._handle.get()).remote(encode_calls([call]))
        try:
            async for message in responses:
                (reply,) = decode_replies(message)
                yield reply
        except (RayActorError, WorkerCrashedError) as error:
            raise ShardLost(
                f"a replica of {self._deployment} died: {type(error).__name__}"
            ) from None
        finally:
            # Ends the generator in the replica where it is not at its end.
            responses.cancel()


class NodeFirstStreams:
    """To the replica of this node with the fewest streams of this door; without one, by handle."""

    def __init__(self, folder: Path, fallback: StreamTransport) -> None:
        self._folder = folder
        self._fallback = fallback
        self._num_open: Counter[Path] = Counter()

    async def stream(self, call: Call) -> AsyncGenerator[Reply, None]:
        message = encode_calls([call])
        for path in sorted(self._sockets(), key=lambda path: self._num_open[path]):
            self._num_open[path] += 1
            try:
                async with aclosing(open_stream(path, message)) as parts:
                    async for part in parts:
                        (reply,) = decode_replies(part)
                        yield reply
                return
            except (ConnectionRefusedError, FileNotFoundError):
                # Left behind by a killed process; nothing was sent.
                with suppress(FileNotFoundError):
                    await asyncio.to_thread(os.unlink, path)
            finally:
                self._num_open[path] -= 1
                if not self._num_open[path]:
                    del self._num_open[path]
        async with aclosing(self._fallback.stream(call)) as replies:
            async for reply in replies:
                yield reply

    def _sockets(self) -> list[Path]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return [self._folder / name for name in sorted(names) if name.endswith(SUFFIX)]
