"""A port belongs to the doors of one Squadron on a node, or the start fails and says so.

With `SO_REUSEPORT` two strangers can bind one port without an error and share its traffic (seen
with Serve's proxy). So the first door of a node binds plainly once, which fails if anybody listens;
its sisters, known by a lock that the doors hold together, may then join.
"""

from __future__ import annotations

import fcntl
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from cluster.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PortClaim:
    """Held while the door listens. `port` is the real one when 0 was asked for."""

    host: str
    port: int
    lock: IO[str]

    def release(self) -> None:
        self.lock.close()

    def __enter__(self) -> PortClaim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def claim_port(
    host: str, port: int, *, key: str, folder: Path, patience_s: float = 10.0
) -> PortClaim:
    """The right to listen on `host:port` with `SO_REUSEPORT`.

    `key` is the config key to name in the error. Port 0 takes a free one (alone, no sisters).
    Raises: ConfigError when another program listens there.
    """
    lock = (folder / f"port-{port}.lock").open("a+")
    try:
        return PortClaim(host=host, port=_claimed(lock, host, port, key, patience_s), lock=lock)
    except ConfigError:
        lock.close()
        raise


def _claimed(lock: IO[str], host: str, port: int, key: str, patience_s: float) -> int:
    deadline_s = time.monotonic() + patience_s
    while not _is_locked(lock, fcntl.LOCK_EX):
        # Somebody holds the lock: a sister that listens (shared) or is still trying (exclusive).
        if _is_locked(lock, fcntl.LOCK_SH):
            return port
        if time.monotonic() > deadline_s:
            raise ConfigError(f"{key}: another door has been opening port {port} for too long")
        time.sleep(0.05)
    free = _bind_plainly(host, port, key)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return free


def _is_locked(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _bind_plainly(host: str, port: int, key: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Allows connections of a predecessor in TIME_WAIT, not a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise ConfigError(
                f"{key}: cannot listen on {host}:{port}: {error.strerror}. Another program uses "
                f"this port (perhaps Serve's own proxy: is http_options missing or misspelt in the "
                f"Serve file?); stop it or choose another port",
                key=key,
                value=port,
                allowed="a free port",
            ) from None
        return int(probe.getsockname()[1])


def listening_socket(claim: PortClaim) -> socket.socket:
    """A socket bound for one door; the kernel spreads connections over the sisters."""
    family = socket.AF_INET6 if ":" in claim.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((claim.host, claim.port))
    sock.setblocking(False)
    return sock
