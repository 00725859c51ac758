"""What processes take, by what they are: of one role and variant together, also over restarts."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

BY_PROCESS = ("role", "variant")
"""No process id: each restart would begin new series, and old ones would never end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMetrics:
    """`role`: door, replica, shard or controller; `variant` is empty for what serves them all."""

    cpu_seconds: Counter
    resident_bytes: Gauge
    count: Gauge


def declare_process_metrics(registry: CollectorRegistry) -> ProcessMetrics:
    """Call once a registry."""

    def gauge(name: str, text: str) -> Gauge:
        return Gauge(name, text, BY_PROCESS, registry=registry, multiprocess_mode="livesum")

    return ProcessMetrics(
        cpu_seconds=Counter(
            "squadron_process_cpu_seconds_total",
            "CPU time of processes, those that have ended too.",
            BY_PROCESS,
            registry=registry,
        ),
        resident_bytes=gauge("squadron_process_resident_bytes", "Resident memory of processes."),
        count=gauge("squadron_processes", "Processes that run."),
    )
