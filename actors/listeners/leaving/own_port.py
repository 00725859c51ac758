"""This process's sockets of one port, also those of a library that keeps them to itself.

gRPC's core owns its sockets and can do nothing but stop: it then cancels calls that it has taken
and Python has not, and resets the connections that wait to be accepted. Linux shows every process
its own sockets under `/proc/self/fd`; elsewhere none is found, and the stop is all there is.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_OWN = "/proc/self/fd"
_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_LISTEN = "0A"
_LOCAL, _STATE, _INODE = 1, 3, 9
"""Columns of the kernel's tables."""

_SO_ATTACH_FILTER = 26
_SYN, _SYN_OR_ACK = 0x02, 0x12
_DROP_NEW = (
    # Classic BPF: (code, jump if true, jump if false, value). The packet begins with TCP's header.
    (0x30, 0, 0, 13),  # load the flags
    (0x54, 0, 0, _SYN_OR_ACK),
    (0x15, 0, 1, _SYN),  # the first packet of a connection?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # take it
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Somebody else's listening socket in this process."""

    descriptor: int
    inode: int

    def is_open(self) -> bool:
        try:
            if os.fstat(self.descriptor).st_ino != self.inode:
                return False
            with socket.socket(fileno=os.dup(self.descriptor)) as found:
                return _listens(found)
        except OSError:
            return False


class OwnPort:
    """`port` as this process has it open, now: every method looks anew."""

    def __init__(self, port: int) -> None:
        self._port = port

    def turn_newcomers_away(self) -> None:
        """Let nobody else in, without a word: their first packet is lost, they send it again after
        a second, and then another door answers, or nobody listens here any more."""
        code = b"".join(struct.pack("HBBI", *step) for step in _DROP_NEW)
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HL", len(_DROP_NEW), ctypes.addressof(buffer))
        with self._sockets() as found:
            for each in found:
                if _listens(each):
                    each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def stop_listening(self) -> None:
        """The connections that were accepted live on."""
        with self._sockets() as found:
            for each in found:
                if _listens(each):
                    each.shutdown(socket.SHUT_RDWR)

    def listener(self) -> Listener | None:
        """Where this process listens on the port, to ask again cheaply; None where it does not."""
        for name in _listed():
            each = self._opened(int(name))
            if each is not None:
                with each:
                    if _listens(each):
                        inode = os.fstat(each.fileno()).st_ino
                        return Listener(descriptor=int(name), inode=inode)
        return None

    def num_connections(self) -> int:
        with self._sockets() as found:
            return sum(map(_has_peer, found))

    def has_sister(self) -> bool:
        """Whether another process listens on this port."""
        with self._sockets() as found:
            own = {str(os.fstat(each.fileno()).st_ino) for each in found}
        return any(inode not in own for inode in self._listeners())

    def _listeners(self) -> Iterator[str]:
        """The inodes of all sockets of this machine that listen on the port."""
        for table in _TABLES:
            with suppress(FileNotFoundError):
                for line in table.read_text().splitlines()[1:]:
                    columns = line.split()
                    port = int(columns[_LOCAL].rpartition(":")[2], 16)
                    if columns[_STATE] == _LISTEN and port == self._port:
                        yield columns[_INODE]

    @contextmanager
    def _sockets(self) -> Iterator[list[socket.socket]]:
        """Duplicates of the port's sockets, closed again at the end."""
        found: dict[int, socket.socket] = {}
        try:
            for name in _listed():
                each = self._opened(int(name))
                if each is not None:
                    inode = os.fstat(each.fileno()).st_ino
                    found.setdefault(inode, each)
                    if found[inode] is not each:
                        each.close()
            yield list(found.values())
        finally:
            for each in found.values():
                each.close()

    def _opened(self, descriptor: int) -> socket.socket | None:
        """None for anything but a TCP socket of this port; it may be gone already."""
        try:
            if not os.readlink(f"{_OWN}/{descriptor}").startswith("socket:"):
                return None
            each = socket.socket(fileno=os.dup(descriptor))
        except OSError:
            return None
        with suppress(OSError):
            is_tcp = each.family in (socket.AF_INET, socket.AF_INET6)
            if is_tcp and each.type == socket.SOCK_STREAM and each.getsockname()[1] == self._port:
                return each
        each.close()
        return None


def _listed() -> list[str]:
    try:
        return os.listdir(_OWN)
    except FileNotFoundError:
        return []


def _listens(each: socket.socket) -> bool:
    return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _has_peer(each: socket.socket) -> bool:
    try:
        each.getpeername()
    except OSError:
        return False
    return True
