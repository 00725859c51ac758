"""Through memory that both processes map: one copy, and a few bytes over a Unix socket to say so.

The memory is the sender's, without a name: its descriptor goes over the socket, so that nothing is
left behind when a process dies. Each slot holds one message until the receiver is done with it.
"""

from __future__ import annotations

import mmap
import os
import select
import socket

import numpy as np

from actors.sharding.channels.message import (
    MAX_HEAD_BYTES,
    PREFIX,
    Message,
    as_array,
    decode_head,
    head_of,
    message_of,
    num_bytes,
    views,
)
from actors.sharding.channels.socket_channel import end, receive_exactly, send_pieces
from cluster.errors import ShardLost

NUM_SLOTS = 8
_FIRST_BYTES = 2**20


class SharedMemoryChannel:
    """Both ends are one of these; see `SocketChannel` for `timeout_s`."""

    def __init__(self, sock: socket.socket, *, timeout_s: float | None = None) -> None:
        self._socket = sock
        sock.settimeout(timeout_s)
        self._slots: dict[int, mmap.mmap] = {}
        self._free = list(range(NUM_SLOTS))
        self._given_back = select.poll()
        self._given_back.register(sock, select.POLLIN)

    def send(self, message: Message) -> None:
        arrays = {name: as_array(value) for name, value in message.values.items()}
        slot = self._take_slot()
        needed = num_bytes(arrays)
        descriptor = self._grow(slot, needed)
        start = 0
        for array in arrays.values():
            if array.nbytes:
                into = np.frombuffer(self._slots[slot], np.uint8, array.nbytes, start)
                into[:] = array.reshape(-1).view(np.uint8)
            start += -(-array.nbytes // 64) * 64
        head = head_of(message, arrays, slot=slot, has_new_memory=descriptor is not None)
        if descriptor is not None:
            try:
                # The descriptor rides on a byte of its own, before the head that speaks of it.
                socket.send_fds(self._socket, [b"M"], [descriptor])
            except OSError as error:
                raise ShardLost(f"the next shard is gone: {error}") from None
            finally:
                os.close(descriptor)
        mark = b"" if descriptor is not None else b"-"
        send_pieces(self._socket, [mark, PREFIX.pack(len(head), needed), head])

    def receive(self) -> Message:
        memory = self._new_memory()
        num_head, _ = PREFIX.unpack(receive_exactly(self._socket, PREFIX.size))
        if num_head > MAX_HEAD_BYTES:
            raise ShardLost("a shard sent what is no message")
        head = decode_head(receive_exactly(self._socket, num_head))
        slot = head.slot
        if memory is not None:
            self._slots[slot] = memory
        values = views(head, memoryview(self._slots[slot])) if head.tensors else {}

        def release() -> None:
            send_pieces(self._socket, [bytes([slot])])

        return message_of(head, values, release)

    def close(self) -> None:
        end(self._socket)

    def _take_slot(self) -> int:
        """The slot that was given back last: its memory is still in the caches."""
        while not self._free or self._given_back.poll(0):
            self._free += receive_exactly(self._socket, 1)
        return self._free.pop()

    def _grow(self, slot: int, needed: int) -> int | None:
        """A descriptor of new memory when the slot's is too small."""
        if slot in self._slots and len(self._slots[slot]) >= needed:
            return None
        size = _FIRST_BYTES
        while size < needed:
            size *= 2
        descriptor = os.memfd_create("squadron-shard", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size)
        self._slots[slot] = mmap.mmap(descriptor, size)
        return descriptor

    def _new_memory(self) -> mmap.mmap | None:
        try:
            said, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        except TimeoutError:
            raise ShardLost("a shard did not answer in time") from None
        except OSError as error:
            raise ShardLost(f"the shard before is gone: {error}") from None
        if not said:
            raise ShardLost("the shard before is gone")
        if not descriptors:
            return None
        (descriptor,) = descriptors
        try:
            return mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
