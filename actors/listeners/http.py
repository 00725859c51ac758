"""The door's own HTTP/1.1 listener: a socket and the connections it accepted. No framework."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

from actors.listeners.http1.connection import HttpConnection
from actors.listeners.http1.turns import Turns
from actors.listeners.http1.wire import ByteBudget
from actors.listeners.http_messages import Answers
from actors.listeners.port_claim import PortClaim
from actors.listeners.socket_sharing import SharedListener
from cluster.config.server import LimitsConfig
from cluster.errors import Overloaded


class HttpListener:
    """Accepts on one claimed port until it is closed."""

    def __init__(
        self, routes: Answers, limits: LimitsConfig, tls: ssl.SSLContext | None = None
    ) -> None:
        self._tls = tls
        self._routes = routes
        self._limits = limits
        self.budget = ByteBudget(limits.max_buffered_bytes)
        self.turns = Turns()
        self._connections: set[HttpConnection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._is_draining = False
        self._server: asyncio.Server | None = None
        self._shared: SharedListener | None = None

    async def start(self, claim: PortClaim, folder: Path) -> None:
        """Listen on the claimed port, on a sister's socket where there is one in `folder`."""
        loop = asyncio.get_running_loop()
        self._shared = await asyncio.to_thread(SharedListener, claim, folder)
        self._shared.offer()
        self._server = await loop.create_server(
            lambda: HttpConnection(self._routes, self._limits, self),
            sock=self._shared.socket.dup(),
            backlog=2048,
            ssl=self._tls,
            ssl_handshake_timeout=self._limits.header_timeout_s if self._tls else None,
        )

    @property
    def is_listening(self) -> bool:
        return self._server is not None and self._server.is_serving()

    def joined(self, connection: HttpConnection) -> None:
        if len(self._connections) >= self._limits.max_connections:
            raise Overloaded(
                f"there are {len(self._connections)} connections, as many as there may be "
                "(limits.max_connections)",
                retry_after_s=1.0,
            )
        self._connections.add(connection)
        self._is_empty.clear()
        if self._is_draining:
            connection.close_when_idle()

    def left(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    async def drain(self, patience_s: float) -> None:
        """Stop accepting, let the requests in flight finish, then close what is left."""
        self._is_draining = True
        if self._server is not None and self._shared is not None:
            self._server.close()
            self._shared.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._is_empty.wait()
        for connection in list(self._connections):
            connection.abort()
