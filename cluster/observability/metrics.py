"""Every metric, declared once: Triton's names beside ours, so that its dashboards keep working.

A node runs many processes; each writes its numbers into memory-mapped files of one folder, and any
door adds them up when it is asked (prometheus_client's multiprocess mode).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import prometheus_client.values
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from cluster.observability.cache_metrics import CacheMetrics, declare_cache_metrics
from cluster.observability.dead_processes import settled
from cluster.observability.device_metrics import device_names
from cluster.observability.door_metrics import DoorMetrics, declare_door_metrics
from cluster.observability.process_metrics import declare_process_metrics
from cluster.observability.shard_metrics import declare_shard_metrics
from cluster.observability.statistics import NodeSamples, Sample

LATENCY_BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
RECOVERY_BUCKETS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Labels: `model` is what the client called, `variant` what answered, `version` its version.

    Durations named `_us` count microseconds and are sums over requests, as Triton's are.
    """

    requests: Counter
    request_seconds: Histogram
    retries: Counter
    inference_success: Counter
    inference_failure: Counter
    inference_rows: Counter
    executions: Counter
    request_duration_us: Counter
    queue_duration_us: Counter
    compute_duration_us: Counter
    input_duration_us: Counter
    output_duration_us: Counter
    stage_seconds: Counter
    pending: Gauge
    batch_rows: Histogram
    in_flight: Gauge
    table_made_s: Gauge
    statistics: StatisticsMetrics
    cache: CacheMetrics
    door: DoorMetrics
    ensemble_events: Counter
    autoscaling: AutoscalingMetrics
    recovery_seconds: Histogram

    def count_ensemble_event(self, ensemble: str, event: str) -> None:
        self.ensemble_events.labels(ensemble, event).inc()


ScalingSource = Literal["guard", "forecast"]
"""`guard`: what is there now is not enough; `forecast`: what will be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingMetrics:
    """What is decided; the reasons are too many for labels (`squadron explain`, the log)."""

    target: Gauge
    changes: Counter


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsMetrics:
    """What only Triton's statistics need (`cluster.observability.statistics`)."""

    failure_seconds: Counter
    executed_requests: Counter
    batch_size_executions: Counter
    batch_size_compute_seconds: Counter
    last_inference: Gauge


def make_metrics(folder: Path) -> Metrics:
    """This process's metrics, written below `folder`. Call once a process.

    prometheus_client chooses its storage when it is imported, and Ray may have imported it before
    us: so the storage class is set here as well as the variable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue()
    return _declared(CollectorRegistry())


def declared() -> CollectorRegistry:
    """What the server's processes count themselves, without what they read of devices, and without
    a count."""
    registry = CollectorRegistry()
    _declared(registry)
    declare_process_metrics(registry)
    declare_shard_metrics(registry)
    return registry


def declared_names() -> frozenset[str]:
    """Every name that the server's processes export, as Prometheus sees it."""
    ends = ("", "_total", "_bucket", "_count", "_sum")
    names = {f"{family.name}{end}" for family in declared().collect() for end in ends}
    return frozenset(names | device_names())


def _declared(registry: CollectorRegistry) -> Metrics:
    by_version = ("model", "version")

    def counter(name: str, text: str, labels: tuple[str, ...] = by_version) -> Counter:
        return Counter(name, text, labels, registry=registry)

    def gauge(name: str, text: str, labels: tuple[str, ...], mode: str = "livesum") -> Gauge:
        return Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    return Metrics(
        requests=counter(
            "squadron_requests_total",
            "Requests that the doors answered.",
            ("model", "variant", "outcome"),
        ),
        request_seconds=Histogram(
            "squadron_request_seconds",
            "Time from the whole request read to the answer handed to the transport.",
            ("model", "variant"),
            registry=registry,
            buckets=LATENCY_BUCKETS_S,
        ),
        retries=counter(
            "squadron_retries_total", "Requests run again because a replica died.", ("variant",)
        ),
        inference_success=counter("nv_inference_request_success", "Successful requests."),
        inference_failure=counter(
            "nv_inference_request_failure", "Failed requests.", ("model", "version", "reason")
        ),
        inference_rows=counter("nv_inference_count", "Inferences (rows of batches)."),
        executions=counter("nv_inference_exec_count", "Executions (batches)."),
        request_duration_us=counter(
            "nv_inference_request_duration_us", "Cumulative request time, microseconds."
        ),
        queue_duration_us=counter(
            "nv_inference_queue_duration_us", "Cumulative time in the queue, microseconds."
        ),
        compute_duration_us=counter(
            "nv_inference_compute_infer_duration_us", "Cumulative engine time, microseconds."
        ),
        input_duration_us=counter(
            "nv_inference_compute_input_duration_us",
            "Cumulative time of putting batches together, microseconds; timed in replicas.",
        ),
        output_duration_us=counter(
            "nv_inference_compute_output_duration_us",
            "Cumulative time of making answers of batches, microseconds; timed in replicas.",
        ),
        stage_seconds=counter(
            "squadron_stage_seconds_total",
            "Time of batches in each stage of a replica, of those that went through its queue.",
            ("variant", "stage"),
        ),
        pending=gauge(
            "nv_inference_pending_request_count", "Requests waiting for the engine.", by_version
        ),
        batch_rows=_by_variant(
            registry, "batch_rows", "Rows of each batch that an engine ran.", BATCH_BUCKETS
        ),
        in_flight=gauge("squadron_requests_in_flight", "Requests inside the doors.", ()),
        table_made_s=gauge(
            "squadron_routing_table_timestamp_seconds",
            "When the newest routing table in use was made, in seconds since 1970; 0: at start.",
            (),
            "livemax",
        ),
        statistics=_statistics(registry),
        cache=declare_cache_metrics(registry),
        door=declare_door_metrics(registry),
        autoscaling=_autoscaling(registry),
        recovery_seconds=_recovery(registry),
        ensemble_events=counter(
            "squadron_ensemble_events_total",
            "What ensembles did beside asking each member once.",
            ("model", "event"),
        ),
    )


def _by_variant(
    registry: CollectorRegistry, name: str, text: str, buckets: Sequence[float]
) -> Histogram:
    return Histogram(f"squadron_{name}", text, ("variant",), registry=registry, buckets=buckets)


def _recovery(registry: CollectorRegistry) -> Histogram:
    text = "From the loss of a replica until as many as before could answer; by the controller."
    return _by_variant(registry, "replica_recovery_seconds", text, RECOVERY_BUCKETS_S)


def _autoscaling(registry: CollectorRegistry) -> AutoscalingMetrics:
    return AutoscalingMetrics(
        target=Gauge(
            "squadron_autoscaling_target_replicas",
            "Replicas that a variant is to have.",
            ("variant",),
            registry=registry,
            multiprocess_mode="livemax",
        ),
        changes=Counter(
            "squadron_autoscaling_changes_total",
            "Decisions that changed the number, by what they came of.",
            ("variant", "source"),
            registry=registry,
        ),
    )


def _statistics(registry: CollectorRegistry) -> StatisticsMetrics:
    by_version = ("model", "version")
    by_size = (*by_version, "batch_size")

    def counter(name: str, text: str, labels: tuple[str, ...] = by_version) -> Counter:
        return Counter(name, text, labels, registry=registry)

    return StatisticsMetrics(
        failure_seconds=counter(
            "squadron_request_failure_seconds", "Cumulative time of failed requests, seconds."
        ),
        executed_requests=counter(
            "squadron_executed_requests", "Requests inside the batches that engines ran."
        ),
        batch_size_executions=counter(
            "squadron_batch_size_executions",
            "Batches of each size in rows.",
            by_size,
        ),
        batch_size_compute_seconds=counter(
            "squadron_batch_size_compute_seconds",
            "Engine time of the batches of each size, seconds.",
            by_size,
        ),
        last_inference=Gauge(
            "squadron_last_inference_seconds",
            "When the last request was answered, seconds since 1970.",
            by_version,
            registry=registry,
            multiprocess_mode="max",
        ),
    )


def aggregate(folder: Path, devices: Collector | None = None) -> bytes:
    """The node's metrics in Prometheus text format: every live and dead process of `folder`.

    Gauges of processes that are gone are dropped first; their counters stay. `devices`: asked too.
    """
    registry = _node(folder)
    if devices is not None:
        registry.register(devices)
    with settled(folder):
        text = generate_latest(registry)
    # The client library appends `_total` to every counter; Triton's names carry no suffix.
    return re.sub(rb"\b(nv_\w+?)_total\b", rb"\1", text)


def node_samples(folder: Path) -> NodeSamples:
    """The same numbers as `aggregate` has, to be asked by name."""
    with settled(folder):
        families = list(_node(folder).collect())
    return NodeSamples(
        Sample(name=sample.name, labels=sample.labels, value=sample.value)
        for metric in families
        for sample in metric.samples
    )


def _node(folder: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Files(folder))
    return registry


class _Files(Collector):
    """prometheus_client's own collector fails on the empty file of a process that just begins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = [str(each) for each in self._folder.glob("*.db") if each.stat().st_size]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)
        return merged
