"""The controller's state, events and feedback in a Redis, for clusters whose head keeps nothing.

The state is one value, replaced as a whole; events and values of feedback are streams of their own
that other programs can follow (`XREAD`). What is new goes in one exchange. A Redis that is slow or
dead holds the controller up no longer than its timeout, and is then left alone for a while.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import RedisError
from redis.retry import Retry

from actors.experiments.kept import Event, Kept, dumped, parsed
from cluster.config.cache import REDIS_SCHEMES, RedisConfig
from cluster.config.security.references import resolve_address
from cluster.experiments.report import Rated

logger = logging.getLogger("squadron.controller")

MAX_EVENTS = 100_000
"""In the stream; older ones are dropped (about: Redis cuts by whole blocks)."""
MAX_RATINGS = 1_000_000
"""In their stream, about."""
MAX_WAITING_RATINGS = 100_000
"""While Redis is away; of more the newest are told."""
MAX_WAITING_RUNS = 64
"""While Redis is away; older ones are in Ray's store and the file only."""

READ_TIMEOUT_S = 5.0
"""A controller reads once, when it begins: it would begin anew over a moment's silence."""


class RedisKeeper:
    """`place` tells servers apart that share one Redis."""

    def __init__(
        self, config: RedisConfig, place: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._retry_after_s = config.retry_after_s
        self._clock = clock
        self._key = f"{config.prefix}:experiments:{place}"
        self._runs = f"{self._key}:asked"
        self._left_alone_until_s = float("-inf")
        self._told: set[Event] = set()
        self._waiting_runs: dict[int, bytes | None] = {}
        self._ratings: deque[Rated] = deque(maxlen=MAX_WAITING_RATINGS)
        self._redis = _client(config, config.timeout_s)
        self._reader = _client(config, max(config.timeout_s, READ_TIMEOUT_S))

    def read(self) -> Kept:
        """Nothing when Redis has nothing, or fails."""
        try:
            found = parsed(cast("bytes | None", self._reader.get(self._key)))
        except (RedisError, OSError) as error:
            self._fail(error)
            return Kept()
        self._told = set(found.events)
        return found

    def write(self, kept: Kept) -> None:
        if self._clock() < self._left_alone_until_s:
            return
        fresh = [event for event in kept.events if event not in self._told]
        try:
            with self._redis.pipeline(transaction=False) as together:
                together.set(self._key, dumped(kept))
                for event in fresh:
                    fields: dict[Any, Any] = {"event": json.dumps(asdict(event))}
                    together.xadd(f"{self._key}:events", fields, maxlen=MAX_EVENTS)
                for rated in self._ratings:
                    value: dict[Any, Any] = {"feedback": json.dumps(asdict(rated))}
                    together.xadd(f"{self._key}:feedback", value, maxlen=MAX_RATINGS)
                self._add_runs(together)
                together.execute()
        except (RedisError, OSError) as error:
            self._fail(error)
            return
        self._told = set(kept.events)
        self._ratings.clear()
        self._waiting_runs.clear()

    def rated(self, ratings: Sequence[Rated]) -> None:
        """They go with the state that counts them. One that Redis answered too late for may stand
        in the stream twice."""
        self._ratings.extend(ratings)

    def runs(self) -> Mapping[int, bytes]:
        """None when Redis has none, or fails."""
        try:
            found = cast("dict[bytes, bytes]", self._reader.hgetall(self._runs))
        except (RedisError, OSError) as error:
            self._fail(error)
            return {}
        return {int(number): content for number, content in found.items()}

    def write_run(self, number: int, content: bytes) -> None:
        self._tell_run(number, content)

    def drop_run(self, number: int) -> None:
        self._tell_run(number, None)

    def _tell_run(self, number: int, content: bytes | None) -> None:
        """None: it is to go. What Redis did not take goes with what is written next."""
        self._waiting_runs.pop(number, None)
        self._waiting_runs[number] = content
        while len(self._waiting_runs) > MAX_WAITING_RUNS:
            del self._waiting_runs[next(iter(self._waiting_runs))]
        if self._clock() < self._left_alone_until_s:
            return
        try:
            with self._redis.pipeline(transaction=False) as together:
                self._add_runs(together)
                together.execute()
        except (RedisError, OSError) as error:
            self._fail(error)
            return
        self._waiting_runs.clear()

    def _add_runs(self, together: Pipeline) -> None:
        for number, content in self._waiting_runs.items():
            if content is None:
                together.hdel(self._runs, str(number))
            else:
                together.hset(self._runs, str(number), cast("str", content))

    def _fail(self, error: Exception) -> None:
        self._left_alone_until_s = self._clock() + self._retry_after_s
        logger.warning("Redis keeps no state for now: %s", type(error).__name__)


def _client(config: RedisConfig, timeout_s: float) -> Redis:
    return Redis.from_url(
        resolve_address(config.url, os.environ, REDIS_SCHEMES, key="server.state_redis.url"),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=config.max_connections,
        retry=Retry(NoBackoff(), 0),
    )
