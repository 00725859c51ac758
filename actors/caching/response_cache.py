"""The response cache of one door: its memory, the computations under way, and the shared Redis.

An answer is kept as the bytes in which it would travel between processes (`protocols.envelope`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from struct import error as StructError
from typing import Literal

from actors.caching.flights import Flights
from actors.caching.memory_store import MemoryStore
from actors.caching.redis_store import RedisStore
from cluster.config.cache import CacheConfig
from cluster.observability.cache_metrics import CacheMetrics
from cluster.protocols.envelope import Reply, decode_replies, encode_replies
from cluster.routing.cache_key import CacheKey
from cluster.tensors import Tensor

logger = logging.getLogger("squadron.cache")

FLUSH_S = 0.5

How = Literal["hit", "shared", "miss"]
"""From a store, from the same request that was under way, or computed."""

Outputs = tuple[Tensor, ...]
Compute = Callable[[], Awaitable[Outputs]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`model` and `version` are for the metrics; `deadline_s` is on the loop's clock."""

    key: CacheKey
    model: str
    version: str
    ttl_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    outputs: Outputs
    how: How


@dataclass(slots=True)
class _Sum:
    hits: int = 0
    shared: int = 0
    misses: int = 0
    hit_s: float = 0.0
    miss_s: float = 0.0


class ResponseCache:
    """Lives on one door's event loop. `clock` is for the answers' age."""

    def __init__(
        self,
        config: CacheConfig,
        metrics: CacheMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._memory = MemoryStore(config.size_bytes, clock)
        self.redis: RedisStore | None = None
        if config.backend == "redis":
            self.redis = RedisStore(config.redis, on_failure=metrics.redis_failures.inc)
        self._loop = asyncio.get_running_loop()
        self._flights: Flights[CacheKey, _Found] = Flights()
        self._sums: dict[tuple[str, str], _Sum] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def answer(self, asked: Asked, compute: Compute) -> tuple[Outputs, How]:
        """The outputs, computed at most once for all that ask the same at the same time.

        Raises: what `compute` raises, which is never kept; DeadlineExceeded.
        """
        began_s = time.perf_counter()
        outputs = _decoded(self._memory.get(asked.key))
        if outputs is not None:
            self._count_hit(asked, time.perf_counter() - began_s)
            return outputs, "hit"
        found, is_own = await self._flights.join(
            asked.key, asked.deadline_s, lambda: self._find(asked, compute)
        )
        if is_own:
            return found.outputs, found.how
        self._count_hit(asked, 0.0)
        self._sum(asked).shared += 1
        return found.outputs, "shared"

    async def _find(self, asked: Asked, compute: Compute) -> _Found:
        began_s = time.perf_counter()
        outputs = await self._from_redis(asked.key)
        looked_s = time.perf_counter() - began_s
        if outputs is not None:
            self._count_hit(asked, looked_s)
            return _Found(outputs=outputs, how="hit")
        self._sum(asked).misses += 1
        outputs = await compute()
        began_s = time.perf_counter()
        data = encode_replies([Reply(call_id=0, outputs=outputs)])
        self._memory.put(asked.key, data, asked.ttl_s)
        if self.redis is not None:
            self.redis.put(asked.key, data, asked.ttl_s)
        self._sum(asked).miss_s += looked_s + time.perf_counter() - began_s
        return _Found(outputs=outputs, how="miss")

    async def _from_redis(self, key: CacheKey) -> Outputs | None:
        found = None if self.redis is None else await self.redis.get(key)
        if found is None:
            return None
        data, left_s = found
        outputs = _decoded(data)
        if outputs is not None:
            self._memory.put(key, data, left_s)
        return outputs

    def write_counts(self) -> None:
        """Bring the metrics up to now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sums, self._sums = self._sums, {}
        for labels, total in sums.items():
            self._metrics.hits.labels(*labels).inc(total.hits)
            self._metrics.shared.labels(*labels).inc(total.shared)
            self._metrics.misses.labels(*labels).inc(total.misses)
            self._metrics.hit_duration_us.labels(*labels).inc(total.hit_s * 1e6)
            self._metrics.miss_duration_us.labels(*labels).inc(total.miss_s * 1e6)
        if sums:
            self._metrics.size_bytes.set(self._memory.size_bytes)

    async def close(self) -> None:
        self.write_counts()
        if self.redis is not None:
            await self.redis.close()

    def _count_hit(self, asked: Asked, seconds: float) -> None:
        total = self._sum(asked)
        total.hits += 1
        total.hit_s += seconds

    def _sum(self, asked: Asked) -> _Sum:
        """To be asked for anew after every wait: the sums are written and begun again meanwhile."""
        labels = (asked.model, asked.version)
        found = self._sums.get(labels)
        if found is None:
            found = self._sums[labels] = _Sum()
            if self._timer is None:
                self._timer = self._loop.call_later(FLUSH_S, self.write_counts)
        return found


def _decoded(data: bytes | None) -> Outputs | None:
    """Views on the bytes; None for none, and for what is no answer: Redis may hold anything."""
    if data is None:
        return None
    try:
        (reply,) = decode_replies(data)
    except (ValueError, KeyError, TypeError, IndexError, StructError) as error:
        logger.warning("an answer from the cache could not be read (%s)", type(error).__name__)
        return None
    return reply.outputs
