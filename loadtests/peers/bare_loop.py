"""The reference: uvloop, httptools and orjson in forty lines, one batch a turn of the loop.

No routing, validation, metrics, deadlines or second process: what is left when all of them are
free. The engine runs in the loop itself.
"""

from __future__ import annotations

import asyncio

import computing
import httptools
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Batch:
    def __init__(self) -> None:
        self.session = computing.make_session()
        self.waiting: list[tuple[asyncio.Transport, computing.Row]] = []

    def add(self, transport: asyncio.Transport, body: bytes) -> None:
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self.run)
        self.waiting.append((transport, computing.decode(body)))

    def run(self) -> None:
        waiting, self.waiting = self.waiting, []
        for start in range(0, len(waiting), computing.MAX_BATCH_SIZE):
            part = waiting[start : start + computing.MAX_BATCH_SIZE]
            outputs = computing.run(self.session, [row for _, row in part])
            for (transport, _), row in zip(part, outputs, strict=True):
                content = computing.encode(row)
                transport.write(HEAD % len(content) + content)


class Connection(asyncio.Protocol):
    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self.body.append(part)

    def on_message_complete(self) -> None:
        body, self.body = b"".join(self.body), []
        self.batch.add(self.transport, body)


async def main() -> None:
    batch = Batch()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(batch), "127.0.0.1", computing.PORT
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
