"""One listening socket a port and node, handed from door to door.

Doors that each bind with `SO_REUSEPORT` have a queue each, and closing a listener resets the
connections queued on it (seen: 8 of 28,500 in a rolling update). So a new door asks a sister for
her socket over a Unix socket (`SCM_RIGHTS`); both accept from one queue, and the one that leaves
takes nothing with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from actors.listeners.port_claim import PortClaim, listening_socket

PATIENCE_S = 1.0


class SharedListener:
    """A port's listening socket in this process, offered to sisters until `close`."""

    def __init__(self, claim: PortClaim, folder: Path) -> None:
        """Blocks for at most `PATIENCE_S`: call it before the door serves, or in a thread."""
        self._path = folder / f"port-{claim.port}.sock"
        self.socket = _from_sister(self._path) or listening_socket(claim)
        self.socket.listen(2048)
        self._offer: socket.socket | None = None

    def offer(self) -> None:
        """Answer sisters on the running loop from now on; the newest door is the one asked."""
        offer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        hidden = self._path.with_suffix(f".{os.getpid()}")
        hidden.unlink(missing_ok=True)
        offer.bind(str(hidden))
        offer.listen(16)
        offer.setblocking(False)
        hidden.rename(self._path)
        self._offer = offer
        asyncio.get_running_loop().add_reader(offer.fileno(), self._hand_over)

    def close(self) -> None:
        """Offer no longer. The accepting server closes its own duplicate of the socket."""
        if self._offer is not None:
            asyncio.get_running_loop().remove_reader(self._offer.fileno())
            self._offer.close()
            self._offer = None
        self.socket.close()

    def _hand_over(self) -> None:
        assert self._offer is not None
        with contextlib.suppress(OSError):  # the sister gave up; she will bind by herself
            sister, _ = self._offer.accept()
            with sister:
                socket.send_fds(sister, [b"s"], [self.socket.fileno()])


def _from_sister(path: Path) -> socket.socket | None:
    """The sister's listening socket; None when nobody answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(PATIENCE_S)
        try:
            asking.connect(str(path))
            _, descriptors, _, _ = socket.recv_fds(asking, 1, 1)
        except OSError:
            return None
    if not descriptors:
        return None
    shared = socket.socket(fileno=descriptors[0])
    shared.setblocking(False)
    return shared
