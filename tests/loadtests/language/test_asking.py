"""The load generator reads streams as both servers write them: a real socket, canned bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loadtests.language.asking import Chat, ask_all, ask_at

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHAT = Chat(text="hello", num_tokens=3)


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


def said(text: str) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}}], usage=None)


EVENTS = [
    event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}]),
    said("a"),
    said("b") + said("c"),  # two of one step in one chunk
    event(choices=[{"index": 0, "delta": {}, "finish_reason": "length"}]),
    event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3}),
    b"data: [DONE]\n\n",
]


@asynccontextmanager
async def server(events: list[bytes], head: bytes = HEAD) -> AsyncIterator[tuple[str, int]]:
    """Answers every request of a connection with `events`, a chunk each."""

    answering: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        answering.add(task)
        try:
            while asked := await reader.readuntil(b"\r\n\r\n"):
                (length,) = [
                    int(line.split(b":")[1])
                    for line in asked.splitlines()
                    if line.startswith(b"content-length")
                ]
                assert json.loads(await reader.readexactly(length))["max_tokens"] == 3
                writer.write(head)
                for each in events:
                    writer.write(b"%x\r\n%s\r\n" % (len(each), each))
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller is done
        finally:
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    yield host, port
    listening.close()
    await asyncio.gather(*answering)


async def test_tokens_chunks_and_times_are_counted_over_kept_connections() -> None:
    async with server(EVENTS) as address:
        seen = await ask_all(address, [CHAT] * 6, 2)

    assert (seen.num_tokens, seen.num_prompt_tokens, seen.num_chunks) == (18, 42, 36)
    assert (len(seen.first), len(seen.between)) == (6, 12)


async def test_open_loop_asks_every_chat() -> None:
    async with server(EVENTS) as address:
        seen = await ask_at(address, [CHAT] * 3, [0.0] * 3)

    assert seen.num_tokens == 9


@pytest.mark.parametrize(
    ("head", "events", "what"),
    [
        (b"HTTP/1.1 503 Busy\r\nconnection: close\r\n\r\n", [], "503 Busy"),
        (HEAD, [event(error={"message": "gone"})], "gone"),
        (HEAD, EVENTS[:-2], "without its usage"),
    ],
)
async def test_what_is_no_answer_ends_the_run(head: bytes, events: list[bytes], what: str) -> None:
    async with server(events, head) as address:
        with pytest.raises(RuntimeError, match=what):
            await ask_all(address, [CHAT], 1)
