"""What a model's calls cost while they are made."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from cluster.client.values import Told
from cluster.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.client.model import Model
    from cluster.tensors import Array

MAX_KEPT = 10_000
"""Latencies of the last so many calls make the quantiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics(Told):
    """Since `start`. Latencies None before the first call.

    `throughput_rps` counts calls, `rows_per_s` rows. `memory_mb` and `cpu_utilisation` (1.0: one
    core busy all the time) are this process's, also for a server's model, whose own are at its
    metrics port. `gpu_utilisation` None: `gpu_note` says why.
    """

    latency_ms: float | None
    p50_ms: float | None
    p99_ms: float | None
    throughput_rps: float
    rows_per_s: float
    num_calls: int
    num_errors: int
    memory_mb: float
    cpu_utilisation: float
    gpu_utilisation: float | None
    gpu_note: str


class InferenceMonitor:
    """Counts the calls of one model between `start` and `stop`; costs each a lock and two adds."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lock = Lock()
        self._is_running = False
        self._start_s: float | None = None
        self._clear()

    def __enter__(self) -> InferenceMonitor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """From zero, also when it runs already."""
        with self._lock:
            self._clear()
            self._start_s, self._start_cpu_s = time.perf_counter(), time.process_time()
            self._is_running = True
        self._model.watch(self)

    def stop(self) -> Metrics:
        """The metrics up to now, which stay what they are."""
        self._model.unwatch(self)
        with self._lock:
            if self._is_running:
                self._end_s, self._end_cpu_s = time.perf_counter(), time.process_time()
            self._is_running = False
        return self.get_metrics()

    def close(self) -> None:
        self.stop()

    def get_metrics(self) -> Metrics:
        """Raises: InvalidRequest when it was never started."""
        with self._lock:
            if self._start_s is None:
                raise InvalidRequest("the monitor was not started: call start() first")
            end_s = time.perf_counter() if self._is_running else self._end_s
            cpu_s = time.process_time() if self._is_running else self._end_cpu_s
            elapsed_s = max(1e-9, end_s - self._start_s)
            kept = sorted(self._latencies_s)
            gpu, note = _gpu()
            return Metrics(
                latency_ms=1e3 * self._total_s / self._num_calls if self._num_calls else None,
                p50_ms=1e3 * kept[len(kept) // 2] if kept else None,
                p99_ms=1e3 * kept[int(0.99 * (len(kept) - 1))] if kept else None,
                throughput_rps=self._num_calls / elapsed_s,
                rows_per_s=self._num_rows / elapsed_s,
                num_calls=self._num_calls,
                num_errors=self._num_errors,
                memory_mb=resident_bytes() / 1e6,
                cpu_utilisation=(cpu_s - self._start_cpu_s) / elapsed_s,
                gpu_utilisation=gpu,
                gpu_note=note,
            )

    def saw(
        self, inputs: Mapping[str, Array], *, rows: int, seconds: float, is_error: bool
    ) -> None:
        """Told by the model after each of its calls."""
        with self._lock:
            if not self._is_running:
                return
            self._num_errors += is_error
            if is_error:
                return
            self._num_calls += 1
            self._num_rows += rows
            self._total_s += seconds
            if len(self._latencies_s) >= MAX_KEPT:
                self._latencies_s[self._num_calls % MAX_KEPT] = seconds
            else:
                self._latencies_s.append(seconds)

    def _clear(self) -> None:
        self._start_cpu_s = self._end_s = self._end_cpu_s = 0.0
        self._num_calls = self._num_rows = self._num_errors = 0
        self._total_s = 0.0
        self._latencies_s: list[float] = []


def resident_bytes() -> int:
    """Memory of this process that is resident."""
    status = Path("/proc/self/statm")
    if status.is_file():
        return int(status.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource
    import sys

    # Where there is no /proc only the peak can be read.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _gpu() -> tuple[float | None, str]:
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None, "not readable: no CUDA device in use"
    try:
        return torch.cuda.utilization() / 100, "of the current CUDA device, by NVML"
    except Exception as error:
        # NVML's bindings may be missing or refuse; its errors have no common class.
        return None, f"not readable: {type(error).__name__}"
