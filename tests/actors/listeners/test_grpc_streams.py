"""The order of responses in one `ModelStreamInfer` call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from actors.listeners.grpc.streams import MAX_READY, GrpcStream, Many, Response
from cluster.errors import DeadlineExceeded


async def requests(*names: str) -> AsyncIterator[bytes]:
    for name in names:
        yield name.encode()


async def taken(stream: GrpcStream) -> list[Response]:
    return [response async for response in stream.responses()]


async def test_ordinary_answers_keep_the_order_of_their_requests() -> None:
    second_is_done = asyncio.Event()

    async def answer(data: bytes) -> Response | Many:
        if data == b"1":
            await second_is_done.wait()
        else:
            second_is_done.set()
        return data

    assert await taken(GrpcStream(requests("1", "2"), answer)) == [b"1", b"2"]


async def test_a_decoupled_request_does_not_hold_up_the_ones_behind_it() -> None:
    other_was_answered = asyncio.Event()

    async def many() -> AsyncGenerator[Response, None]:
        yield b"first"
        await other_was_answered.wait()
        yield b"last"

    async def answer(data: bytes) -> Response | Many:
        return many() if data == b"many" else data

    found: list[Response] = []
    async for response in GrpcStream(requests("many", "plain"), answer).responses():
        found.append(response)
        if response == b"plain":
            other_was_answered.set()

    assert sorted(found[:2], key=str) == [b"first", b"plain"]
    assert found[2:] == [b"last"]


async def test_a_caller_that_leaves_ends_what_is_under_way() -> None:
    made: list[int] = []
    is_closed = asyncio.Event()

    async def many() -> AsyncGenerator[Response, None]:
        try:
            while True:
                made.append(1)
                yield b"x"
        finally:
            is_closed.set()

    async def answer(data: bytes) -> Response | Many:
        return many()

    async with aclosing(GrpcStream(requests("a"), answer).responses()) as responses:
        await anext(responses)
        for _ in range(10 * MAX_READY):
            await asyncio.sleep(0)
    assert is_closed.is_set()
    # What the caller took, what waits for it, and the one that found no room.
    assert len(made) <= MAX_READY + 2


async def test_requests_that_break_off_show_their_error_after_what_was_read() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"1"
        raise RuntimeError("gone")

    async def answer(data: bytes) -> Response | Many:
        return data

    responses = GrpcStream(broken(), answer).responses()
    assert await anext(responses) == b"1"
    with pytest.raises(RuntimeError, match="gone"):
        await anext(responses)


async def test_a_caller_that_reads_nothing_is_given_up_and_told_so_when_it_reads() -> None:
    is_closed = asyncio.Event()

    async def many() -> AsyncGenerator[Response, None]:
        try:
            while True:
                yield b"x"
        finally:
            is_closed.set()

    async def answer(data: bytes) -> Response | Many:
        return many()

    stream = GrpcStream(requests("a"), answer, patience_s=0.05)
    async with aclosing(stream.responses()) as responses:
        await anext(responses)
        await asyncio.wait_for(is_closed.wait(), 5)
        with pytest.raises(DeadlineExceeded, match=r"limits\.send_timeout_s"):
            await anext(responses)


async def test_a_stream_with_nothing_to_read_is_not_given_up() -> None:
    may_ask = asyncio.Event()

    async def asked() -> AsyncIterator[bytes]:
        yield b"1"
        await may_ask.wait()
        yield b"2"

    async def answer(data: bytes) -> Response | Many:
        return data

    found: list[Response] = []
    async for response in GrpcStream(asked(), answer, patience_s=0.02).responses():
        found.append(response)
        asyncio.get_running_loop().call_later(0.2, may_ask.set)

    assert found == [b"1", b"2"]
