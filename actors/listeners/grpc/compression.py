"""Which of gRPC's answers travel compressed, and what came compressed.

gRPC's core knows what a caller can read and what it sent, and tells neither to Python; at a
compression *level* it chooses an algorithm that the caller accepts, for every message that is not
excepted. So the level is always set and answers are excepted that are small or not asked for.

What came compressed the core would expand before anybody has looked whose it is: kilobytes of a
caller without a key became a body's limit in memory, for every call that was open. So it leaves
messages as they came (`AS_THEY_CAME`), and they are expanded here, behind the key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from actors.listeners.compression import MIN_COMPRESSED_BYTES, expand, preferred_coding
from cluster.config.server import GrpcCompression
from cluster.errors import InvalidRequest

ASKED_BY = "accept-encoding"
"""The call's metadata: as over HTTP, where gRPC's own header of that meaning cannot be seen."""

AS_THEY_CAME = ("grpc.per_message_decompression", 0)
"""Option of a server."""

# No message begins like gzip: field 3 of a wire type that there is none of. Field 15, of which ours
# have none, could begin like zlib; what is not zlib further on is taken as it is.
_GZIP = b"\x1f\x8b"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")

_LEVELS: dict[GrpcCompression, int] = {"none": 1, "low": 1, "medium": 2, "high": 3}
"""`grpc_compression_level` of the core."""


class AnswerCompression:
    """`configured`: other than `none`, all large answers to callers that accept it."""

    def __init__(self, configured: GrpcCompression) -> None:
        self.level = _LEVELS[configured]
        self._is_for_all = configured != "none"

    def choose(self, answer: bytes, context: Any) -> None:
        """For the message that is sent next."""
        is_large = len(answer) >= MIN_COMPRESSED_BYTES
        if not (is_large and (self._is_for_all or _asks(context))):
            context.disable_next_message_compression()


def _asks(context: Any) -> bool:
    for name, value in context.invocation_metadata() or ():
        if name == ASKED_BY:
            return preferred_coding(str(value)) != "identity"
    return False


class MessageExpansion:
    """Messages as they were before they were compressed, at most `limit` bytes. What is no longer
    compressed stays what it is, so it does not matter how often one is looked at."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    async def message(self, data: bytes) -> bytes:
        """Raises: PayloadTooLarge, InvalidRequest."""
        if data.startswith(_GZIP):
            return await expand(data, "gzip", self._limit)
        if data.startswith(_ZLIB):
            try:
                return await expand(data, "deflate", self._limit)
            except InvalidRequest:
                return data
        return data

    def unary(
        self, work: Callable[[bytes, Any], Awaitable[bytes]]
    ) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def run(data: bytes, context: Any) -> bytes:
            return await work(await self.message(data), context)

        return run

    def streaming(
        self, work: Callable[[Any, Any], AsyncIterator[bytes]]
    ) -> Callable[[Any, Any], AsyncIterator[bytes]]:
        """`asked`: one message, or many."""

        async def run(asked: Any, context: Any) -> AsyncIterator[bytes]:
            plain = await self.message(asked) if isinstance(asked, bytes) else self._each(asked)
            async for part in work(plain, context):
                yield part

        return run

    async def _each(self, asked: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for data in asked:
            yield await self.message(data)
