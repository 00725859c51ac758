"""A group's leader writes what its shards tell with their beats."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from actors.sharding.control import Beat, Ready
from cluster.observability.process_metrics import ProcessMetrics, declare_process_metrics
from cluster.observability.shard_metrics import ShardMetrics, declare_shard_metrics
from cluster.placement.partition import Layout


class GroupWatch:
    """Of one group. Beats hold totals since the shard began; counters get what came since."""

    def __init__(
        self, variant: str, layout: Layout, shards: ShardMetrics, processes: ProcessMetrics
    ) -> None:
        self._variant = variant
        self._shards = shards
        self._labels = [(variant, str(each.stage), str(each.rank)) for each in layout.shards]
        self._cpu = processes.cpu_seconds.labels("shard", variant)
        self._resident = processes.resident_bytes.labels("shard", variant)
        self._count = processes.count.labels("shard", variant)
        self._last = [Beat(peak_bytes=0)] * len(layout.shards)

    def started(self, ready: tuple[Ready, ...]) -> None:
        for labels, each in zip(self._labels, ready, strict=True):
            self._shards.weight_bytes.labels(*labels).set(each.weight_bytes)
        self._shards.groups.labels(self._variant).set(1)
        self._shards.lost.labels(self._variant).inc(0)
        self._count.set(len(ready))

    def heard(self, rank: int, beat: Beat) -> None:
        shards, labels, last = self._shards, self._labels[rank], self._last[rank]
        shards.busy_seconds.labels(*labels).inc(max(0.0, beat.busy_s - last.busy_s))
        shards.steps.labels(*labels).inc(max(0, beat.num_steps - last.num_steps))
        shards.resident_bytes.labels(*labels).set(beat.resident_bytes)
        shards.peak_bytes.labels(*labels).set(beat.peak_bytes)
        self._cpu.inc(max(0.0, beat.cpu_s - last.cpu_s))
        self._last[rank] = beat
        self._resident.set(sum(each.resident_bytes for each in self._last))

    def ended(self, *, is_lost: bool) -> None:
        self._shards.groups.labels(self._variant).set(0)
        self._count.set(0)
        self._resident.set(0)
        for labels in self._labels:
            self._shards.resident_bytes.labels(*labels).set(0)
        if is_lost:
            self._shards.lost.labels(self._variant).inc()


def group_watch(variant: str, layout: Layout) -> GroupWatch:
    """Once a process, after `make_metrics`."""
    registry = CollectorRegistry()
    return GroupWatch(
        variant, layout, declare_shard_metrics(registry), declare_process_metrics(registry)
    )
