"""Which of gRPC's answers travel compressed.

gRPC's core knows what a caller can read and what it sent, and tells neither to Python; at a
compression *level* it chooses an algorithm that the caller accepts, for every message that is not
excepted. So the level is always set and answers are excepted that are small or not asked for.
"""

from __future__ import annotations

from typing import Any

from actors.listeners.compression import MIN_COMPRESSED_BYTES, preferred_coding
from cluster.config.server import GrpcCompression

ASKED_BY = "accept-encoding"
"""The call's metadata: as over HTTP, where gRPC's own header of that meaning cannot be seen."""

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
