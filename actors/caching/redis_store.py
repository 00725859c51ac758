"""Answers in a Redis that the doors of the cluster share. It may be slow, dead or wrong: a request
waits for it no longer than its timeout, and after a failure it is left alone for a while.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cluster.config.cache import REDIS_SCHEMES, RedisConfig
from cluster.config.security.references import resolve_address
from cluster.routing.cache_key import CacheKey

logger = logging.getLogger("squadron.cache")

MAX_WRITES = 64
"""Answers on their way to Redis at once; more than that are not stored there."""


class RedisStore:
    """Lives on one event loop. Connects with the first request."""

    def __init__(
        self,
        config: RedisConfig,
        *,
        on_failure: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._on_failure = on_failure
        self._clock = clock
        self._closed_until_s = float("-inf")
        self._writes: set[asyncio.Task[None]] = set()
        self._redis = Redis.from_url(
            resolve_address(config.url, os.environ, REDIS_SCHEMES, key="server.cache.redis.url"),
            socket_timeout=config.timeout_s,
            socket_connect_timeout=config.timeout_s,
            max_connections=config.max_connections,
            retry=Retry(NoBackoff(), 0),
        )

    async def get(self, key: CacheKey) -> tuple[bytes, float] | None:
        """The answer and the seconds it is still good for; None as well when Redis fails."""
        if self._is_left_alone():
            return None
        try:
            async with asyncio.timeout(self._config.timeout_s):
                async with self._redis.pipeline(transaction=False) as both:
                    both.get(self._name(key))
                    both.pttl(self._name(key))
                    data, left_ms = await both.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._fail(error)
            return None
        if not isinstance(data, bytes) or not isinstance(left_ms, int) or left_ms <= 0:
            return None
        return data, left_ms / 1000

    def put(self, key: CacheKey, data: bytes, ttl_s: float) -> None:
        """Returns at once; the answer is stored in the background."""
        if self._is_left_alone() or len(self._writes) >= MAX_WRITES:
            return
        task = asyncio.get_running_loop().create_task(self._put(key, data, ttl_s))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def written(self) -> None:
        """When everything that was put so far is stored, or has failed."""
        if self._writes:
            await asyncio.wait(self._writes)

    async def close(self) -> None:
        for task in self._writes:
            task.cancel()
        await self.written()
        await self._redis.aclose()

    async def _put(self, key: CacheKey, data: bytes, ttl_s: float) -> None:
        try:
            async with asyncio.timeout(self._config.timeout_s):
                await self._redis.set(self._name(key), data, px=max(1, round(ttl_s * 1000)))
        except (RedisError, OSError, TimeoutError) as error:
            self._fail(error)

    def _is_left_alone(self) -> bool:
        return self._clock() < self._closed_until_s

    def _fail(self, error: Exception) -> None:
        self._on_failure()
        if not self._is_left_alone():
            self._closed_until_s = self._clock() + self._config.retry_after_s
            logger.warning(
                "the cache's Redis failed (%s) and is not asked for %g s",
                type(error).__name__,
                self._config.retry_after_s,
            )

    def _name(self, key: CacheKey) -> str:
        return f"{self._config.prefix}:answer:{key.hex()}"
