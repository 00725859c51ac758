"""What each layer adds: the same work at each level, measured in turns.

L0 the engine alone at the batch sizes that the server formed · L1 a replica without network ·
L2 a door and its replicas in one process, without Ray · L3 the whole Serve application ·
L4 the same by way of an experiment and of an ensemble of two steps.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from loadtests.servers import ROOT, Running, free_ports, infer_path, model_file, process_server
from loadtests.works import Work

L1_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """What an engine ran: `rows` in `executions` batches; `buckets` by upper bound of rows."""

    rows: float
    executions: float
    buckets: dict[str, float]

    @property
    def mean_rows(self) -> float:
        return self.rows / self.executions if self.executions else 1.0

    def since(self, before: Batches) -> Batches:
        return Batches(
            rows=self.rows - before.rows,
            executions=self.executions - before.executions,
            buckets={
                bound: count - before.buckets.get(bound, 0.0)
                for bound, count in self.buckets.items()
            },
        )


def batches_so_far(running: Running, variant: str) -> Batches:
    """From Squadron's metrics."""
    text = httpx.get(f"http://127.0.0.1:{running.metrics_port}/metrics", timeout=10).text
    return parse_batches(text, variant)


def parse_batches(text: str, variant: str) -> Batches:
    """Prometheus text -> batches; its buckets are cumulative, ours are not."""
    sums = {"nv_inference_count": 0.0, "nv_inference_exec_count": 0.0}
    cumulative: dict[str, float] = {}
    for name, labels, value in re.findall(r"^(\w+)\{([^}]*)\} (\S+)$", text, re.MULTILINE):
        found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if name in sums and found.get("model") == variant:
            sums[name] += float(value)
        if name == "squadron_batch_rows_bucket" and found.get("variant") == variant:
            bound = found["le"]
            cumulative[bound] = cumulative.get(bound, 0.0) + float(value)
    buckets, below = {}, 0.0
    for bound in sorted(cumulative, key=float):
        buckets[bound] = cumulative[bound] - below
        below = cumulative[bound]
    return Batches(
        rows=sums["nv_inference_count"],
        executions=sums["nv_inference_exec_count"],
        buckets=buckets,
    )


class RawEngine:
    """L0: ONNX Runtime with one thread in this process, nothing around it."""

    def __init__(self, work: Work) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(model_file(work)), options, providers=["CPUExecutionProvider"]
        )
        self._work = work

    def rows_per_s(self, mean_rows: float, *, seconds: float) -> float:
        """At a mean batch of `mean_rows`: the two whole sizes around it, in that proportion."""
        low = max(1, int(mean_rows))
        share_of_high = mean_rows - low
        each_s = seconds / (2 if share_of_high > 0.01 else 1)
        batch_s = self._batch_s(low, each_s) * (1 - share_of_high)
        if share_of_high > 0.01:
            batch_s += self._batch_s(low + 1, each_s) * share_of_high
        return mean_rows / batch_s

    def curve_ms(self, *, seconds: float) -> dict[int, float]:
        """Milliseconds of a batch by its rows: powers of two up to the work's largest batch."""
        sizes = [1 << power for power in range(self._work.max_batch_size.bit_length())]
        return {rows: 1e3 * self._batch_s(rows, seconds / len(sizes)) for rows in sizes}

    def _batch_s(self, rows: int, seconds: float) -> float:
        feeds = {
            name: np.repeat(array, rows, axis=0) for name, array in self._work.inputs().items()
        }
        self._session.run([self._work.output], feeds)
        started_s, num_batches = time.perf_counter(), 0
        while time.perf_counter() - started_s < seconds or num_batches < 2:
            self._session.run([self._work.output], feeds)
            num_batches += 1
        return (time.perf_counter() - started_s) / num_batches


def replica_alone(config: Path, work: Work, *, rows: int, seconds: float) -> dict[str, float]:
    """L1, in a process of its own. Raises: RuntimeError with the end of what it printed."""
    command = [sys.executable, "-m", "loadtests.without_ray", "replica", "--config", str(config)]
    command += ["--work", work.name, "--rows", str(rows), "--seconds", str(seconds)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=L1_TIMEOUT_S + seconds
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@contextlib.contextmanager
def door_alone(config: Path, work: Work, scratch: Path) -> Iterator[Running]:
    """L2. Raises: ServerFailed."""
    ports = free_ports(3)
    command = [sys.executable, "-m", "loadtests.without_ray", "door", "--config", str(config)]
    probe = Running(name="", version="", pid=0, http_port=ports[0])
    with process_server(
        "door",
        [*command, "--port", str(ports[0])],
        {},
        scratch,
        version="",
        ports=ports,
        probe=probe.target(infer_path(work.name), work.v2()),
    ) as running:
        yield running
