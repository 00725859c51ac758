"""How a call ends: with its answers, or with the protocol's status for what went wrong.

gRPC keeps the exception that ended a call where its own frames lead back to it, until the garbage
collector comes by, which is rare in a door. So a call is ended in a frame that holds nothing of
what was asked, and not while an error is being handled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from actors.listeners.grpc.compression import AnswerCompression
from cluster.errors import SquadronError

logger = logging.getLogger("squadron.grpc")

MAX_DETAILS = 4000
"""Characters of an error's text: status details travel in a header of limited size."""

Unary = Callable[[bytes, Any], Awaitable[bytes]]
Streaming = Callable[[Any, Any], AsyncIterator[bytes]]


def answered(work: Unary, compression: AnswerCompression) -> Unary:
    """Errors become the call's status, a bug INTERNAL without details; see `ended`."""

    async def run(data: bytes, context: Any) -> bytes:
        try:
            answer = await work(data, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            _tell(context, error)
            return b""
        compression.choose(answer, context)
        return answer

    return run


def ended(work: Unary) -> Unary:
    """The outermost of a call with one answer: it ends with the status that it was given."""

    async def run(data: bytes, context: Any) -> bytes:
        asked = [data]
        del data
        answer = await work(asked.pop(), context)
        if context.code() is not None:
            await context.abort(context.code(), context.details())
        return answer

    return run


def streamed(work: Streaming, compression: AnswerCompression) -> Streaming:
    """The same for a call with any number of answers."""

    async def run(asked: Any, context: Any) -> AsyncIterator[bytes]:
        try:
            async for data in work(asked, context):
                compression.choose(data, context)
                yield data
            return
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            raise
        except Exception as error:
            _tell(context, error)
        del asked
        await context.abort(context.code(), context.details())

    return run


def _tell(context: Any, error: Exception) -> None:
    if isinstance(error, SquadronError):
        code: grpc.StatusCode = grpc.StatusCode[error.grpc_status]
        context.set_code(code)
        context.set_details(error.message[:MAX_DETAILS])
        return
    logger.error("a gRPC request failed with a bug of ours", exc_info=error)
    context.set_code(grpc.StatusCode.INTERNAL)
    context.set_details("internal error")
