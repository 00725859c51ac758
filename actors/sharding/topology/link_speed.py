"""What a link carries, measured with the channel that activations would take over it."""

from __future__ import annotations

import socket
import statistics
import threading
import time

import numpy as np

from actors.sharding.channels.message import Message
from actors.sharding.channels.socket_channel import SocketChannel
from cluster.engines.sharded.part import Step

SMALL, LARGE = 4 * 2**10, 8 * 2**20
ROUNDS = 15


class LinkEnd:
    """One on each end: one listens, the other measures."""

    def listen(self, host: str) -> int:
        """The port on which the next connection is answered, from a thread."""
        server = socket.create_server((host, 0))
        threading.Thread(target=_answer, args=(server,), daemon=True).start()
        return int(server.getsockname()[1])

    def measure(self, host: str, port: int) -> tuple[float, float]:
        """(seconds of an empty message one way, bytes a second)."""
        with socket.create_connection((host, port), timeout=20) as sock:
            channel = SocketChannel(sock, timeout_s=20)
            small_s, large_s = _round_s(channel, SMALL), _round_s(channel, LARGE)
            channel.send(Message(number=-1, step=Step(), values={}))
        return small_s / 2, (LARGE - SMALL) / max(1e-9, large_s - small_s)


def _round_s(channel: SocketChannel, size: int) -> float:
    values = {"hidden_states": np.zeros(size // 4, np.float32)}
    took = []
    for number in range(ROUNDS):
        began_s = time.perf_counter()
        channel.send(Message(number=number, step=Step(), values=values))
        channel.receive().done()
        took.append(time.perf_counter() - began_s)
    return statistics.median(took)


def _answer(server: socket.socket) -> None:
    with server:
        sock, _ = server.accept()
    with sock:
        channel = SocketChannel(sock, timeout_s=20)
        while True:
            message = channel.receive()
            if message.number < 0:
                return
            message.done()
            channel.send(Message(number=message.number, step=Step(), values={}))
