"""Over a Unix socket or TCP: the tensors' bytes as they lie in memory."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

import numpy as np

from actors.sharding.channels.message import (
    MAX_HEAD_BYTES,
    PREFIX,
    Message,
    as_array,
    decode_head,
    head_of,
    layout,
    message_of,
    num_bytes,
)
from cluster.errors import ShardLost

BUFFER_BYTES = 4 * 2**20
_PADDING = bytes(64)


class SocketChannel:
    """`timeout_s`: longest wait of a `receive`, for the side that must not wait for ever."""

    def __init__(self, sock: socket.socket, *, timeout_s: float | None = None) -> None:
        self._socket = sock
        self._timeout_s = timeout_s
        sock.settimeout(timeout_s)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)

    def send(self, message: Message) -> None:
        arrays = {name: as_array(value) for name, value in message.values.items()}
        head = head_of(message, arrays)
        pieces: list[memoryview | bytes] = [PREFIX.pack(len(head), num_bytes(arrays)), head]
        for array in arrays.values():
            pieces.append(array.reshape(-1).view(np.uint8).data)
            pieces.append(_PADDING[: -array.nbytes % 64])
        send_pieces(self._socket, pieces)

    def receive(self) -> Message:
        prefix = receive_exactly(self._socket, PREFIX.size)
        num_head, num_payload = PREFIX.unpack(prefix)
        if num_head > MAX_HEAD_BYTES:
            raise ShardLost("a shard sent what is no message")
        head = decode_head(receive_exactly(self._socket, num_head))
        values = {}
        for tensor, (dtype, shape, padded) in zip(head.tensors, layout(head), strict=True):
            memory = np.empty(padded, np.uint8)
            receive_into(self._socket, memory.data)
            num_payload -= padded
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            values[tensor.name] = memory[:size].view(dtype).reshape(shape)
        if num_payload:
            raise ShardLost("a shard sent what is no message")
        return message_of(head, values)

    def close(self) -> None:
        end(self._socket)


def end(sock: socket.socket) -> None:
    """Wakes whoever waits on it, then lets go of it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def send_pieces(sock: socket.socket, pieces: Sequence[memoryview | bytes]) -> None:
    left = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    try:
        while left:
            sent = sock.sendmsg(left[:64])
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]
    except OSError as error:
        raise ShardLost(f"the next shard is gone: {error}") from None


def receive_exactly(sock: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    receive_into(sock, memoryview(data))
    return data


def receive_into(sock: socket.socket, memory: memoryview) -> None:
    start = 0
    while start < len(memory):
        try:
            count = sock.recv_into(memory[start:])
        except TimeoutError:
            raise ShardLost("a shard did not answer in time") from None
        except OSError as error:
            raise ShardLost(f"the shard before is gone: {error}") from None
        if not count:
            raise ShardLost("the shard before is gone")
        start += count
