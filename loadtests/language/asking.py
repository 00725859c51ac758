"""Streams of chat answers, asked for over bare sockets: what is measured is the server.

A client library's own work a chunk (0.1 ms and more) would take the core that the server needs.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

CONTENT = b'"content":"'
NO_CONTENT = b'"content":""'
LAST_CHUNK = b"0\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """One request; `num_tokens` are generated, whatever the model would rather."""

    text: str
    num_tokens: int
    system: str = ""
    model: str = "assistant"

    def body(self) -> bytes:
        system = [{"role": "system", "content": self.system}] if self.system else []
        asked = {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": self.text}],
            "max_tokens": self.num_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return json.dumps(asked).encode()


@dataclass(slots=True, kw_only=True)
class Seen:
    """One block. **Units:** seconds. `between` is between two pieces of one answer."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    num_chunks: int = 0
    took_s: float = 0.0
    front_cpu_s: float = 0.0
    engine_cpu_s: float = 0.0


async def ask_all(address: tuple[str, int], chats: Iterable[Chat], concurrency: int) -> Seen:
    """Closed loop: each of `concurrency` callers has one connection and one stream open."""
    seen = Seen()
    left = iter(chats)
    began_s = time.perf_counter()
    await asyncio.gather(*(_caller(address, left, seen) for _ in range(concurrency)))
    seen.took_s = time.perf_counter() - began_s
    return seen


async def ask_at(address: tuple[str, int], chats: Iterable[Chat], gaps_s: Iterable[float]) -> Seen:
    """Open loop: each chat comes `gap` after the one before, however long those take."""
    seen = Seen()
    tasks = []
    began_s = time.perf_counter()
    for chat, gap_s in zip(chats, gaps_s, strict=True):
        await asyncio.sleep(gap_s)
        tasks.append(asyncio.ensure_future(_caller(address, iter([chat]), seen)))
    await asyncio.gather(*tasks)
    seen.took_s = time.perf_counter() - began_s
    return seen


async def _caller(address: tuple[str, int], chats: Iterator[Chat], seen: Seen) -> None:
    reader, writer = await asyncio.open_connection(*address)
    try:
        for chat in chats:
            body = chat.body()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: %s\r\n"
                b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                % (address[0].encode(), len(body), body)
            )
            await _read(reader, seen)
    finally:
        writer.close()
        await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, seen: Seen) -> None:
    """One answer, to its end. **Raises:** RuntimeError for what is no stream."""
    began_s = time.perf_counter()
    last_s = 0.0
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0] + b" ":
        raise RuntimeError(head.decode() + (await reader.read(2000)).decode())
    usage: dict[str, int] = {}
    while (line := await reader.readline()) != LAST_CHUNK:
        if not line:
            raise RuntimeError("the connection ended within a stream")
        if not line.startswith(b"data: {"):
            continue
        seen.num_chunks += 1
        if CONTENT in line and NO_CONTENT not in line:
            now_s = time.perf_counter()
            if last_s:
                seen.between.append(now_s - last_s)
            else:
                seen.first.append(now_s - began_s)
            last_s = now_s
        elif b'"choices":[]' in line:
            usage = json.loads(line[6:])["usage"]
        elif b'"error"' in line:
            raise RuntimeError(line.decode())
    await reader.readline()
    if not usage:
        raise RuntimeError("a stream without its usage")
    seen.num_tokens += usage["completion_tokens"]
    seen.num_prompt_tokens += usage["prompt_tokens"]
