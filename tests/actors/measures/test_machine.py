from __future__ import annotations

from pathlib import Path

from actors.measures.devices import NodeDevices
from actors.measures.machine import Machine
from cluster.observability.device_metrics import CpuReading, device_names
from cluster.observability.metrics import aggregate, make_metrics

MEMORY = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\nHugePages_Total: 0\n"


def test_what_was_in_use_is_counted_from_one_reading_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(MEMORY)
    (tmp_path / "stat").write_text("cpu  100 0 100 700 100 0 0 0 9 9\ncpu0 1 2 3\n")
    machine = Machine(tmp_path)
    nothing_yet = machine.read()
    (tmp_path / "stat").write_text("cpu  160 0 120 710 110 0 0 0 99 9\ncpu0 1 2 3\n")

    reading = machine.read()

    memory = {"used_bytes": 750 * 1024, "total_bytes": 1000 * 1024}
    assert nothing_yet == CpuReading(busy=None, **memory)
    assert reading == CpuReading(busy=0.8, **memory)


def test_a_machine_without_these_files_says_nothing(tmp_path: Path) -> None:
    assert Machine(tmp_path).read() is None


def test_this_machine_is_in_the_nodes_metrics_under_tritons_names(tmp_path: Path) -> None:
    make_metrics(tmp_path)
    devices = NodeDevices(rapl=tmp_path / "none")
    sum(range(2_000_000))  # some ticks

    lines = aggregate(tmp_path, devices).decode().splitlines()

    told = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("nv_cpu_")}
    assert set(told) <= device_names()
    assert 0 <= told.get("nv_cpu_utilization", 0) <= 1
    assert 0 < told["nv_cpu_memory_used_bytes"] < told["nv_cpu_memory_total_bytes"]
