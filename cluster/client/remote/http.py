"""HTTP to one server, with a pool of connections: for callers that wait and for asyncio."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from typing import Any

import httpx

from cluster.client.backend import Backend
from cluster.client.remote.backend import HttpBackend
from cluster.client.remote.coding import Body, error_of, seconds_of
from cluster.client.remote.retry import Retry
from cluster.client.remote.settings import ServerSettings
from cluster.client.remote.shared_inputs import SharedInputs
from cluster.errors import ConfigError, DeadlineExceeded, NoReadyReplica, SquadronError


def client_options(settings: ServerSettings) -> dict[str, Any]:
    """Of httpx's clients, sync and async alike."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "squadron-client", **settings.headers}
    if settings.api_key:
        headers["Authorization"] = f"Bearer {settings.api_key}"
    return {
        "base_url": settings.url.rstrip("/"),
        "headers": headers,
        "timeout": settings.timeout_s,
        "limits": httpx.Limits(
            max_connections=settings.max_connections,
            max_keepalive_connections=settings.max_connections,
        ),
        "verify": _trusted(settings.verify),
        # A proxy of the environment is not meant for a server that was named by address.
        "trust_env": False,
    }


class HttpServer:
    """See `Server`."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.shared = SharedInputs(self) if settings.uses_shared_memory else None
        self._client = httpx.Client(**client_options(settings))

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

    def open(self, model: str) -> Backend:
        return HttpBackend(self, model, self.shared)

    def is_ready(self) -> bool:
        try:
            self.get("/v2/health/ready")
        except SquadronError:
            return False
        return True

    def model_names(self) -> list[str]:
        answer = self.send("POST", "/v2/repository/index", Body(content=b"{}"))
        return sorted({str(entry["name"]) for entry in answer.json()})

    def close(self) -> None:
        if self.shared is not None:
            self.shared.close()
        self._client.close()


class AsyncHttpServer:
    """See `HttpServer`; for one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._client = httpx.AsyncClient(**client_options(settings))

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
    settings: ServerSettings, response: httpx.Response | None, failure: httpx.TransportError | None
) -> httpx.Response:
    if response is None:
        raise _unreached(settings, failure) from None
    if response.status_code >= 400:
        told = response.headers.get("retry-after")
        raise error_of(response.status_code, response.content, told)
    return response


def _unreached(settings: ServerSettings, failure: httpx.TransportError | None) -> SquadronError:
    said = str(failure) or type(failure).__name__
    if isinstance(failure, httpx.TimeoutException):
        return DeadlineExceeded(
            f"{settings.url}: no answer within {settings.timeout_s:g} s ({type(failure).__name__})"
        )
    return NoReadyReplica(f"{settings.url}: cannot be reached: {said}", url=settings.url)


def _trusted(verify: bool | str) -> bool | ssl.SSLContext:
    """Raises: ConfigError for a file that holds no authority's certificates."""
    if isinstance(verify, bool):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:  # ssl's own errors are among them
        raise ConfigError(
            f"verify is {verify!r}: {error.strerror or error}; allowed: True, False, a PEM file of "
            "authorities",
            key="verify",
            value=verify,
        ) from None
