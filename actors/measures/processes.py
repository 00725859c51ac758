"""This process's CPU time and memory, written to the node's metrics every two seconds."""

from __future__ import annotations

import threading
import time

from prometheus_client import CollectorRegistry

from actors.process_limits import usage
from cluster.observability.process_metrics import ProcessMetrics, declare_process_metrics

PERIOD_S = 2.0


class ProcessWatch:
    """`look` brings the metrics up to now; `start` has it called for as long as the process is."""

    def __init__(self, metrics: ProcessMetrics, role: str, variant: str = "") -> None:
        self._cpu = metrics.cpu_seconds.labels(role, variant)
        self._resident = metrics.resident_bytes.labels(role, variant)
        self._counted_s = 0.0
        metrics.count.labels(role, variant).set(1)

    def look(self) -> None:
        now = usage()
        self._cpu.inc(max(0.0, now.cpu_s - self._counted_s))
        self._counted_s = now.cpu_s
        self._resident.set(now.resident_bytes)

    def start(self) -> None:
        threading.Thread(target=self._run, name="process-watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.look()
            time.sleep(PERIOD_S)


def watch_process(role: str, variant: str = "") -> None:
    """Once a process, after `make_metrics`."""
    ProcessWatch(declare_process_metrics(CollectorRegistry()), role, variant).start()
