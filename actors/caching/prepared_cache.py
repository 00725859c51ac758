"""What preprocessing made of a request's inputs, kept in its replica for the next request of the
same inputs: a photo is decoded, a text tokenised, once.

Arrays as they are, never pickled. A decoded photo takes several times the bytes of its file, so the
bound counts what is kept. Bound to one pipeline: nothing but the inputs is part of the key.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import TTLCache

from actors.caching.memory_store import ENTRY_BYTES
from cluster.config.cache import PreprocessCacheConfig
from cluster.observability.cache_metrics import CacheMetrics
from cluster.processing.pipeline import Prepared
from cluster.routing.cache_key import CacheKey, inputs_key
from cluster.tensors import Tensor

Prepare = Callable[[], Prepared]


class PreparedCache:
    """Called from one thread at a time. `labels`: model and version, for the metrics."""

    def __init__(
        self,
        config: PreprocessCacheConfig,
        metrics: CacheMetrics,
        labels: tuple[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept: TTLCache[CacheKey, Prepared] = TTLCache(
            maxsize=config.size_bytes, ttl=config.ttl_s, timer=clock, getsizeof=_size
        )
        self._hits = metrics.prepared_hits.labels(*labels)
        self._misses = metrics.prepared_misses.labels(*labels)

    @property
    def size_bytes(self) -> int:
        return int(self._kept.currsize)

    def prepared(self, inputs: tuple[Tensor, ...], prepare: Prepare) -> Prepared:
        """Raises: what `prepare` raises; that is not kept."""
        key = inputs_key(inputs)
        found = self._kept.get(key)
        if found is not None:
            self._hits.inc()
            return found
        self._misses.inc()
        made = prepare()
        for array in made.arrays.values():
            # Other requests will see the same memory.
            array.flags.writeable = False
        if _size(made) <= self._kept.maxsize:
            self._kept[key] = made
        return made


def _size(prepared: Prepared) -> int:
    return sum(array.nbytes for array in prepared.arrays.values()) + ENTRY_BYTES
