"""Mosec: its Rust front, one worker process, dynamic batching that waits 1 ms at most."""

from __future__ import annotations

import computing
from mosec import Server, Worker


class Model(Worker):
    def __init__(self) -> None:
        self.session = computing.make_session()

    def deserialize(self, data: bytes) -> computing.Row:
        return computing.decode(data)

    def forward(self, data: list[computing.Row]) -> list:
        return list(computing.run(self.session, data))

    def serialize(self, data) -> bytes:
        return computing.encode(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=1, max_batch_size=computing.MAX_BATCH_SIZE, max_wait_time=1)
    server.run()
