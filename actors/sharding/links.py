"""Finding and trusting each other: who dials whom, with the group's secret in the first frame."""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import tempfile
import threading
from pathlib import Path

import msgspec

from actors.sharding.channels.socket_channel import end, receive_exactly
from cluster.errors import ShardLost

HELLO_TIMEOUT_S = 10.0
_MAX_HELLO_BYTES = 4096


class Hello(msgspec.Struct, frozen=True):
    """`what`: `control`, or `data` for activations. `rank` of who dials; -1 is the leader."""

    token: str
    rank: int
    what: str


class Listener:
    """Takes the connections of a group's members; strangers are dropped without a word.

    `host`: None for a Unix socket in a private folder, else the address of this node for TCP.
    """

    def __init__(self, token: str, host: str | None = None) -> None:
        self._token = token
        self._found: dict[tuple[int, str], socket.socket] = {}
        self._changed = threading.Condition()
        self._folder: str | None = None
        if host is None:
            self._folder = tempfile.mkdtemp(prefix="squadron-")
            self._socket = socket.socket(socket.AF_UNIX)
            path = str(Path(self._folder) / "s")
            self._socket.bind(path)
            self.address = f"unix:{path}"
        else:
            self._socket = socket.create_server((host, 0))
            self.address = f"tcp:{host}:{self._socket.getsockname()[1]}"
        self._socket.listen(64)
        threading.Thread(target=self._accept, name="shard-listener", daemon=True).start()

    def take(self, rank: int, what: str, timeout_s: float) -> socket.socket:
        """The connection of that member. Raises: ShardLost when it does not come in time."""
        key = rank, what
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._found, timeout_s):
                raise ShardLost(f"shard {rank} did not connect within {timeout_s:g} s")
            return self._found.pop(key)

    def close(self) -> None:
        end(self._socket)
        with self._changed:
            for left in self._found.values():
                left.close()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                os.unlink(Path(self._folder) / "s")
            with contextlib.suppress(OSError):
                os.rmdir(self._folder)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._welcome, args=(connection,), daemon=True).start()

    def _welcome(self, connection: socket.socket) -> None:
        connection.settimeout(HELLO_TIMEOUT_S)
        try:
            length = int.from_bytes(receive_exactly(connection, 4), "little")
            if length > _MAX_HELLO_BYTES:
                raise ShardLost("no hello")
            hello = msgspec.msgpack.decode(receive_exactly(connection, length), type=Hello)
        except (ShardLost, msgspec.MsgspecError):
            connection.close()
            return
        # As bytes: a text that is not ASCII cannot be compared, and comes from a stranger.
        if not hmac.compare_digest(hello.token.encode(), self._token.encode()):
            connection.close()
            return
        connection.settimeout(None)
        with self._changed:
            self._found[hello.rank, hello.what] = connection
            self._changed.notify_all()


def dial(address: str, hello: Hello) -> socket.socket:
    """A connection on which the other end knows who we are. Raises: ShardLost."""
    kind, _, rest = address.partition(":")
    try:
        if kind == "unix":
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(rest)
            except OSError:
                connection.close()
                raise
        else:
            host, _, port = rest.rpartition(":")
            connection = socket.create_connection((host, int(port)), HELLO_TIMEOUT_S)
            connection.settimeout(None)
        data = msgspec.msgpack.encode(hello)
        connection.sendall(len(data).to_bytes(4, "little") + data)
    except OSError as error:
        raise ShardLost(f"cannot reach a shard at {address}: {error}") from None
    return connection
