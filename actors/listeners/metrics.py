"""`/metrics` on a port of its own, as Triton has it: one door answers for its whole node."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from actors.listeners.http import HttpListener
from actors.listeners.http_messages import Answers, HttpReply, HttpRequest, HttpStream
from actors.listeners.port_claim import PortClaim, claim_port
from cluster.config.server import LimitsConfig, ListenerConfig


class MetricsListener:
    """Answers only what a scraper and a probe need; the numbers are the whole node's."""

    def __init__(
        self,
        routes: Answers,
        config: ListenerConfig,
        limits: LimitsConfig,
        folder: Path,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._listener = HttpListener(_OnlyMetrics(routes), limits, tls)
        self._claim: PortClaim | None = None

    async def start(self) -> None:
        """Raises: ConfigError when another program has the port."""
        self._claim = await asyncio.to_thread(
            claim_port,
            self._config.host,
            self._config.port,
            key="server.metrics.port",
            folder=self._folder,
        )
        await self._listener.start(self._claim, self._folder)

    @property
    def is_listening(self) -> bool:
        return self._listener.is_listening

    async def close(self) -> None:
        await self._listener.drain(0.5)
        if self._claim is not None:
            self._claim.release()


class _OnlyMetrics:
    """The routes of the metrics port."""

    def __init__(self, routes: Answers) -> None:
        self._routes = routes

    def begin(
        self, request: HttpRequest, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        return None

    async def answer(self, request: HttpRequest) -> HttpReply | HttpStream:
        path = "/metrics" if request.path.rstrip("/") in ("", "/metrics") else "/none"
        return await self._routes.answer(
            HttpRequest(method=request.method, path=path, headers=request.headers)
        )
