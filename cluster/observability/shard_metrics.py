"""Groups of shards and what each shard does, as their leader hears it. A shard is named by its rank
in its group; replicas of one variant on a node are added up."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

BY_SHARD = ("variant", "stage", "shard")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMetrics:
    groups: Gauge
    lost: Counter
    busy_seconds: Counter
    steps: Counter
    resident_bytes: Gauge
    peak_bytes: Gauge
    weight_bytes: Gauge


def declare_shard_metrics(registry: CollectorRegistry) -> ShardMetrics:
    """Call once a registry."""

    def counter(name: str, text: str) -> Counter:
        return Counter(name, text, BY_SHARD, registry=registry)

    def gauge(name: str, text: str, labels: tuple[str, ...] = BY_SHARD) -> Gauge:
        return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")

    return ShardMetrics(
        groups=gauge("squadron_shard_groups", "Groups of shards that work.", ("variant",)),
        lost=Counter(
            "squadron_shard_groups_lost_total",
            "Groups that ended because one of their shards did.",
            ("variant",),
            registry=registry,
        ),
        busy_seconds=counter(
            "squadron_shard_busy_seconds_total", "Time that a shard computed, not waited."
        ),
        steps=counter("squadron_shard_steps_total", "Micro-batches that a shard computed."),
        resident_bytes=gauge("squadron_shard_resident_bytes", "Resident memory of the process."),
        peak_bytes=gauge("squadron_shard_peak_bytes", "The greatest that was ever resident."),
        weight_bytes=gauge("squadron_shard_weight_bytes", "Weights that the shard holds."),
    )
