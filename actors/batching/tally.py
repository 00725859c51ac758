"""What a replica's batches came to, added up in memory until it is written to the metrics.

A batch has ten increments of metrics, and in prometheus_client's multiprocess mode each asks the
kernel for the process id: 25 µs a batch, as much as a small model computes.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Counter

from cluster.observability.histogram import observe_many
from cluster.observability.metrics import BATCH_BUCKETS, Metrics


@dataclass(slots=True)
class _Sum:
    """Batches of one size."""

    batches: int = 0
    requests: int = 0
    compute_s: float = 0.0
    request_compute_s: float = 0.0
    request_input_s: float = 0.0
    request_output_s: float = 0.0
    queue_s: float = 0.0


class BatchTally:
    """Of one variant in one process; `busy_s`, `num_served` and `num_rows` since it began. `add`
    and `flush` may come from two threads."""

    def __init__(
        self,
        metrics: Metrics,
        variant: str,
        version: str,
        *,
        flush_later: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`flush_later` is given the flush, to be called at latest before somebody reads the
        metrics; without it every batch is written at once."""
        self.busy_s = 0.0
        self.num_served = 0
        self.num_rows = 0
        self._metrics = metrics
        self._variant = variant
        self._labels = (variant, version)
        self._lock = threading.Lock()
        self._sums: dict[int, _Sum] = {}
        self._stages: dict[str, float] = {}
        self._stage_counters: dict[str, Counter] = {}
        self._flushes_itself = flush_later is None
        if flush_later is not None:
            flush_later(self.flush)

    def add(
        self,
        *,
        rows: int,
        num_requests: int,
        queue_s: float,
        compute_s: float,
        input_s: float = 0.0,
        output_s: float = 0.0,
    ) -> None:
        """A batch was computed. `queue_s`: the waiting of all its requests together. `input_s` and
        `output_s`: the parts of `compute_s` before and after the engine, where they were timed."""
        with self._lock:
            self.busy_s += compute_s
            self.num_served += num_requests
            self.num_rows += rows
            total = self._sums.get(rows)
            if total is None:
                total = self._sums[rows] = _Sum()
            total.batches += 1
            total.requests += num_requests
            total.compute_s += compute_s
            total.request_compute_s += (compute_s - input_s - output_s) * num_requests
            total.request_input_s += input_s * num_requests
            total.request_output_s += output_s * num_requests
            total.queue_s += queue_s
        if self._flushes_itself:
            self.flush()

    def spent(self, **seconds: float) -> None:
        """Time of a batch, or of the calls before one, by stage; written with the next batch."""
        with self._lock:
            for stage, each_s in seconds.items():
                self._stages[stage] = self._stages.get(stage, 0.0) + each_s

    def flush(self) -> None:
        """Write what came since the last time."""
        if not self._sums:
            return
        with self._lock:
            sums, self._sums = self._sums, {}
            stages, self._stages = self._stages, {}
        for stage, each_s in stages.items():
            self._stage(stage).inc(each_s)
        for rows, total in sums.items():
            self._write(rows, total)

    def _stage(self, stage: str) -> Counter:
        found = self._stage_counters.get(stage)
        if found is None:
            labelled = self._metrics.stage_seconds.labels(self._variant, stage)
            found = self._stage_counters[stage] = labelled
        return found

    def _write(self, rows: int, total: _Sum) -> None:
        metrics, labels = self._metrics, self._labels
        of_size = (*labels, str(rows))
        statistics = metrics.statistics
        metrics.inference_rows.labels(*labels).inc(rows * total.batches)
        metrics.executions.labels(*labels).inc(total.batches)
        metrics.queue_duration_us.labels(*labels).inc(total.queue_s * 1e6)
        metrics.compute_duration_us.labels(*labels).inc(total.request_compute_s * 1e6)
        metrics.input_duration_us.labels(*labels).inc(total.request_input_s * 1e6)
        metrics.output_duration_us.labels(*labels).inc(total.request_output_s * 1e6)
        statistics.executed_requests.labels(*labels).inc(total.requests)
        statistics.batch_size_executions.labels(*of_size).inc(total.batches)
        statistics.batch_size_compute_seconds.labels(*of_size).inc(total.compute_s)
        buckets = [0] * (len(BATCH_BUCKETS) + 1)
        buckets[bisect_left(BATCH_BUCKETS, rows)] = total.batches
        observe_many(metrics.batch_rows.labels(self._variant), buckets, rows * total.batches)
