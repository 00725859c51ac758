"""HTTP to one server, with a pool of connections: for callers that wait and for asyncio."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any

import aiohttp
import urllib3

from cluster.client.backend import Backend
from cluster.client.remote.backend import HttpBackend
from cluster.client.remote.coding import Answer, Body, error_of, seconds_of
from cluster.client.remote.retry import Retry
from cluster.client.remote.settings import ServerSettings
from cluster.client.remote.shared_inputs import SharedInputs
from cluster.errors import ConfigError, DeadlineExceeded, NoReadyReplica, SquadronError


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no answer. `is_timeout`: it took too long; `is_final`: another try would too."""

    said: str
    is_timeout: bool = False
    is_final: bool = False


class HttpServer:
    """See `Server`."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.shared = SharedInputs(self) if settings.uses_shared_memory else None
        self._headers = _headers(settings)
        self._pool = _pool(settings)
        self._base = urllib3.util.parse_url(settings.url).path or ""

    def get(self, path: str) -> Answer:
        return self.send("GET", path, Body(content=b""))

    def send(self, method: str, path: str, body: Body) -> Answer:
        attempt = 0
        while True:
            came = self._once(method, path, body)
            wait_s = _wait_s(self.settings.retry, attempt, came)
            if wait_s is None:
                return _settled(self.settings, came)
            time.sleep(wait_s)
            attempt += 1

    def _once(self, method: str, path: str, body: Body) -> Answer | Failure:
        try:
            response = self._pool.urlopen(
                method,
                self._base.rstrip("/") + path,
                body=body.content or None,
                headers={**self._headers, **body.headers},
                redirect=False,
                # Whether a call is sent again is ours to say.
                retries=False,
                pool_timeout=self.settings.timeout_s,  # type: ignore[arg-type]  # a queue's: any number
            )
        except (urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.EmptyPoolError) as error:
            return Failure(said=type(error).__name__, is_timeout=True, is_final=True)
        except urllib3.exceptions.HTTPError as error:
            # A refused connection is a kind of timeout to urllib3 2.
            is_timeout = isinstance(
                error, urllib3.exceptions.ConnectTimeoutError
            ) and not isinstance(error, urllib3.exceptions.NewConnectionError)
            return Failure(said=_said(error), is_timeout=is_timeout)
        return Answer(status=response.status, headers=response.headers, content=response.data)

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

    def load(self, model: str, config: str) -> None:
        content = json.dumps({"parameters": {"config": config}}).encode()
        name = urllib.parse.quote(model, safe="")
        self.send("POST", f"/v2/repository/models/{name}/load", Body(content=content))

    def close(self) -> None:
        if self.shared is not None:
            self.shared.close()
        self._pool.close()


class AsyncHttpServer:
    """See `HttpServer`; for one event loop, the one that its first call is made on."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._ssl = _trusted(settings.verify)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, method: str, path: str, body: Body) -> Answer:
        attempt = 0
        while True:
            came = await self._once(method, path, body)
            wait_s = _wait_s(self.settings.retry, attempt, came)
            if wait_s is None:
                return _settled(self.settings, came)
            await asyncio.sleep(wait_s)
            attempt += 1

    async def _once(self, method: str, path: str, body: Body) -> Answer | Failure:
        if self._session is None:
            self._session = self._opened()
        try:
            async with self._session.request(
                method,
                self.settings.url.rstrip("/") + path,
                data=body.content or None,
                headers=body.headers,
                allow_redirects=False,
            ) as response:
                content = await response.read()
                return Answer(status=response.status, headers=response.headers, content=content)
        except aiohttp.ConnectionTimeoutError as error:
            return Failure(said=type(error).__name__, is_timeout=True)
        except TimeoutError as error:
            return Failure(said=type(error).__name__, is_timeout=True, is_final=True)
        except (aiohttp.ClientError, OSError) as error:
            return Failure(said=_said(error))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        settings = self.settings
        return aiohttp.ClientSession(
            headers=_headers(settings),
            connector=aiohttp.TCPConnector(limit=settings.max_connections, ssl=self._ssl),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=settings.timeout_s, sock_read=settings.timeout_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )


def _headers(settings: ServerSettings) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity", "User-Agent": "squadron-client", **settings.headers}
    if settings.api_key:
        headers["Authorization"] = f"Bearer {settings.api_key}"
    return headers


def _pool(settings: ServerSettings) -> urllib3.HTTPConnectionPool:
    """Raises: ConfigError for an address that is none."""
    options: dict[str, Any] = {
        "maxsize": settings.max_connections,
        "block": True,
        "timeout": urllib3.Timeout(connect=settings.timeout_s, read=settings.timeout_s),
    }
    if settings.url.startswith("https://"):
        trusted = _trusted(settings.verify)
        if isinstance(trusted, ssl.SSLContext):
            options["ssl_context"] = trusted
        elif not trusted:
            options["ssl_context"] = _trusting()
    try:
        return urllib3.connection_from_url(settings.url, **options)
    except urllib3.exceptions.LocationValueError as error:
        raise ConfigError(
            f"url is {settings.url!r}: {error}; allowed: http://HOST:PORT, https://HOST:PORT",
            key="url",
            value=settings.url,
        ) from None


def _wait_s(retry: Retry, attempt: int, came: Answer | Failure) -> float | None:
    if isinstance(came, Failure):
        if came.is_final:
            return None
        return retry.wait_s(attempt, status=None, told_s=None, draw=random.random())
    told_s = seconds_of(came.headers.get("retry-after"))
    return retry.wait_s(attempt, status=came.status, told_s=told_s, draw=random.random())


def _settled(settings: ServerSettings, came: Answer | Failure) -> Answer:
    if isinstance(came, Failure):
        raise _unreached(settings, came)
    if came.status >= 400:
        raise error_of(came.status, came.content, came.headers.get("retry-after"))
    return came


def _unreached(settings: ServerSettings, failure: Failure) -> SquadronError:
    if failure.is_timeout:
        return DeadlineExceeded(
            f"{settings.url}: no answer within {settings.timeout_s:g} s ({failure.said})"
        )
    return NoReadyReplica(f"{settings.url}: cannot be reached: {failure.said}", url=settings.url)


def _said(error: BaseException) -> str:
    """What the system said; the libraries wrap it in words about their own objects."""
    inner = error.__cause__ or next((a for a in error.args if isinstance(a, Exception)), None)
    return (str(error) or type(error).__name__) if inner is None else _said(inner)


def _trusting() -> ssl.SSLContext:
    """For `verify=False`: an encrypted connection to whoever answers."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


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
