"""The response cache's metrics: Triton's names, and what is in the memory."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMetrics:
    """Labels `model` and `version`. A hit is a request that was answered without being computed;
    durations are microseconds of looking up, and of storing too for a miss.
    """

    hits: Counter
    shared: Counter
    misses: Counter
    hit_duration_us: Counter
    miss_duration_us: Counter
    size_bytes: Gauge
    redis_failures: Counter
    prepared_hits: Counter
    prepared_misses: Counter


def declare_cache_metrics(registry: CollectorRegistry) -> CacheMetrics:
    def counter(name: str, text: str, labels: tuple[str, ...] = ("model", "version")) -> Counter:
        return Counter(name, text, labels, registry=registry)

    return CacheMetrics(
        hits=counter("nv_cache_num_hits_per_model", "Requests that the cache answered."),
        shared=counter(
            "squadron_cache_shared",
            "Those of the hits that waited for the same request, which was being computed.",
        ),
        misses=counter("nv_cache_num_misses_per_model", "Requests that the cache did not know."),
        hit_duration_us=counter(
            "nv_cache_hit_duration_per_model", "Cumulative time of hits in the cache, us."
        ),
        miss_duration_us=counter(
            "nv_cache_miss_duration_per_model", "Cumulative time of misses in the cache, us."
        ),
        size_bytes=Gauge(
            "squadron_cache_size_bytes",
            "Answers kept in the doors' memory, bytes.",
            registry=registry,
            multiprocess_mode="livesum",
        ),
        prepared_hits=counter(
            "squadron_preprocess_cache_hits", "Requests whose inputs had been preprocessed before."
        ),
        prepared_misses=counter(
            "squadron_preprocess_cache_misses", "Requests whose inputs were preprocessed, and kept."
        ),
        redis_failures=counter(
            "squadron_cache_redis_failures", "Times that Redis failed or was too slow.", ()
        ),
    )
