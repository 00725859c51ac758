"""CPU and memory of several processes in one folder, one of them killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.observability.metrics import aggregate, node_samples

CODE = """
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from actors.measures.processes import ProcessWatch
from cluster.observability.metrics import make_metrics
from cluster.observability.process_metrics import declare_process_metrics
make_metrics(Path(sys.argv[1]))
ballast = bytearray(50_000_000)
watch = ProcessWatch(declare_process_metrics(CollectorRegistry()), "replica", "v")
for _ in range(3):
    watch.look()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-c", CODE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
        started.kill()


def test_processes_are_added_up_and_one_that_is_killed_leaves_its_cpu_time_only(
    tmp_path: Path,
) -> None:
    which = {"role": "replica", "variant": "v"}
    with process(tmp_path) as one, process(tmp_path) as other:
        both = node_samples(tmp_path)
        one.send_signal(signal.SIGKILL)
        one.wait()
        left = node_samples(tmp_path)
        assert other.poll() is None

    assert both.total("squadron_processes", **which) == 2
    assert left.total("squadron_processes", **which) == 1
    resident = both.total("squadron_process_resident_bytes", **which)
    assert resident > 2 * 50_000_000
    assert 0 < left.total("squadron_process_resident_bytes", **which) < resident
    cpu_s = both.total("squadron_process_cpu_seconds", **which)
    assert cpu_s > 0.1  # of two interpreters that imported numpy and more
    assert left.total("squadron_process_cpu_seconds", **which) == cpu_s


def test_no_series_is_named_after_a_process(tmp_path: Path) -> None:
    with process(tmp_path) as one:
        text = aggregate(tmp_path).decode()
        pid = one.pid

    assert "squadron_process_resident_bytes{" in text
    assert not re.search(rf'"{pid}"', text)
    assert 'pid="' not in text
    assert str(os.getpid()) not in text
