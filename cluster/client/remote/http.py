"""HTTP to one server, with a pool of connections: for callers that wait and for asyncio."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from cluster.client.remote.coding import Body, Compression, error_of, seconds_of
from cluster.client.remote.retry import Retry
from cluster.errors import ConfigError, DeadlineExceeded, NoReadyReplica, SquadronError


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How a server is talked to. `timeout_s` holds for each attempt by itself."""

    url: str
    api_key: str = field(default="", repr=False)
    timeout_s: float = 30.0
    retry: Retry = field(default_factory=Retry)
    compression: Compression | None = None
    max_connections: int = 100
    headers: Mapping[str, str] = field(default_factory=dict)
    verify: bool | str = True

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{self.url!r} is no address of a server; allowed: http://HOST:PORT, "
                "https://HOST:PORT, grpc://HOST:PORT",
                key="url",
                value=self.url,
            )
        if self.compression not in (None, "gzip", "deflate"):
            raise ConfigError(
                f"compression is {self.compression!r}; allowed: gzip, deflate, None",
                key="compression",
                value=str(self.compression),
                allowed="gzip, deflate",
            )
        if not self.timeout_s > 0:
            raise ConfigError(
                f"timeout_s is {self.timeout_s}; allowed: above 0", key="timeout_s",
                value=self.timeout_s,
            )  # fmt: skip

    def options(self) -> dict[str, Any]:
        """Of httpx's clients, sync and async alike."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "squadron-client", **self.headers}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return {
            "base_url": self.url.rstrip("/"),
            "headers": headers,
            "timeout": self.timeout_s,
            "limits": httpx.Limits(
                max_connections=self.max_connections,
                max_keepalive_connections=self.max_connections,
            ),
            "verify": self.verify,
            # A proxy of the environment is not meant for a server that was named by address.
            "trust_env": False,
        }


class HttpServer:
    """Safe to use from several threads. Raises from every call: SquadronError with the server's
    words; NoReadyReplica when it cannot be reached, DeadlineExceeded when it takes too long."""

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self._client = httpx.Client(**settings.options())

    def get(self, path: str) -> httpx.Response:
        return self.send("GET", path, Body(content=b""))

    def send(self, method: str, path: str, body: Body) -> httpx.Response:
        attempt = 0
        while True:
            response: httpx.Response | None = None
            failure: httpx.TransportError | None = None
            try:
                response = self._client.request(
                    method, path, content=body.content or None, headers=dict(body.headers)
                )
            except httpx.TransportError as error:
                failure = error
            wait_s = _wait_s(self.settings.retry, attempt, response, failure)
            if wait_s is None:
                return _settled(self.settings, response, failure)
            time.sleep(wait_s)
            attempt += 1

    def close(self) -> None:
        self._client.close()


class AsyncHttpServer:
    """See `HttpServer`; for one event loop."""

    def __init__(self, settings: HttpSettings) -> None:
        self.settings = settings
        self._client = httpx.AsyncClient(**settings.options())

    async def send(self, method: str, path: str, body: Body) -> httpx.Response:
        attempt = 0
        while True:
            response: httpx.Response | None = None
            failure: httpx.TransportError | None = None
            try:
                response = await self._client.request(
                    method, path, content=body.content or None, headers=dict(body.headers)
                )
            except httpx.TransportError as error:
                failure = error
            wait_s = _wait_s(self.settings.retry, attempt, response, failure)
            if wait_s is None:
                return _settled(self.settings, response, failure)
            await asyncio.sleep(wait_s)
            attempt += 1

    async def close(self) -> None:
        await self._client.aclose()


def _wait_s(
    retry: Retry,
    attempt: int,
    response: httpx.Response | None,
    failure: httpx.TransportError | None,
) -> float | None:
    if isinstance(failure, httpx.ReadTimeout | httpx.WriteTimeout | httpx.PoolTimeout):
        return None
    if isinstance(failure, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return None
    status = told_s = None
    if response is not None:
        status, told_s = response.status_code, seconds_of(response.headers.get("retry-after"))
    return retry.wait_s(attempt, status=status, told_s=told_s, draw=random.random())


def _settled(
    settings: HttpSettings, response: httpx.Response | None, failure: httpx.TransportError | None
) -> httpx.Response:
    if response is None:
        raise _unreached(settings, failure) from None
    if response.status_code >= 400:
        told = response.headers.get("retry-after")
        raise error_of(response.status_code, response.content, told)
    return response


def _unreached(settings: HttpSettings, failure: httpx.TransportError | None) -> SquadronError:
    said = str(failure) or type(failure).__name__
    if isinstance(failure, httpx.TimeoutException):
        return DeadlineExceeded(
            f"{settings.url}: no answer within {settings.timeout_s:g} s ({type(failure).__name__})"
        )
    return NoReadyReplica(f"{settings.url}: cannot be reached: {said}", url=settings.url)
