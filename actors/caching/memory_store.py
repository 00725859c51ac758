"""Answers in this door's memory: bounded in bytes, the least recently used goes first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TLRUCache

from cluster.routing.cache_key import CacheKey

ENTRY_BYTES = 600
"""What an entry costs beside its data: its key and the cache's own links."""


@dataclass(frozen=True, slots=True)
class _Kept:
    data: bytes
    ttl_s: float


class MemoryStore:
    """Lives on one event loop. `clock` counts seconds."""

    def __init__(self, size_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: TLRUCache[CacheKey, _Kept] = TLRUCache(
            maxsize=size_bytes, ttu=_expires_at, timer=clock, getsizeof=_size
        )

    @property
    def size_bytes(self) -> int:
        return int(self._kept.currsize)

    def get(self, key: CacheKey) -> bytes | None:
        found = self._kept.get(key)
        return None if found is None else found.data

    def put(self, key: CacheKey, data: bytes, ttl_s: float) -> None:
        """An answer larger than the whole store is not kept."""
        kept = _Kept(data, ttl_s)
        if _size(kept) <= self._kept.maxsize:
            self._kept[key] = kept


def _expires_at(key: CacheKey, kept: _Kept, now_s: float) -> float:
    return now_s + kept.ttl_s


def _size(kept: _Kept) -> int:
    return len(kept.data) + ENTRY_BYTES
