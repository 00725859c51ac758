from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

from actors.measures.devices import NodeDevices, read_gpus
from cluster.observability.device_metrics import (
    CpuReading,
    NodeReading,
    device_metrics,
    device_names,
)
from cluster.observability.metrics import aggregate


class TwoGpus:
    """What the driver of two GPUs would say, behind NVML's own names; the second one is old."""

    NVMLError = pynvml.NVMLError
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __getattr__(self, name: str) -> Any:
        assert hasattr(pynvml, name), f"NVML has no {name}"
        answers = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda gpu: f"GPU-{gpu}",
            "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=25),
            "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(used=1, total=4),
            "nvmlDeviceGetPowerUsage": lambda gpu: 250_000,
            "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: 700_000,
            "nvmlDeviceGetTotalEnergyConsumption": self._energy,
            "nvmlDeviceGetTemperature": lambda gpu, sensor: 40 + sensor,
        }
        return answers[name]

    def _energy(self, gpu: int) -> int:
        if gpu == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 9_000


def test_gpus_have_tritons_names_in_their_units() -> None:
    gpus = tuple(read_gpus(TwoGpus()))
    found = {
        (sample.name, sample.labels["gpu_uuid"]): sample.value
        for family in device_metrics(NodeReading(gpus=gpus, energy_j={}))
        for sample in family.samples
    }

    assert {name: value for (name, uuid), value in found.items() if uuid == "GPU-0"} == {
        "nv_gpu_utilization": 0.25,
        "nv_gpu_memory_used_bytes": 1,
        "nv_gpu_memory_total_bytes": 4,
        "nv_gpu_power_usage": 250,
        "nv_gpu_power_limit": 700,
        "squadron_gpu_temperature_celsius": 40,
        "nv_energy_consumption_total": 9,
    }
    # What its driver does not say has no line.
    assert ("nv_energy_consumption_total", "GPU-1") not in found
    assert found["nv_gpu_utilization", "GPU-1"] == 0.25


def test_a_node_without_what_could_be_read_has_no_lines_and_is_not_zero(tmp_path: Path) -> None:
    devices = NodeDevices(rapl=tmp_path / "none")

    assert "cpu" not in devices.read().energy_j
    assert b"squadron_energy_joules" not in aggregate(tmp_path, devices) or devices.read().gpus


def test_the_energy_of_all_packages_is_a_counter_of_the_nodes_metrics(tmp_path: Path) -> None:
    for number, microjoules in enumerate((3_000_000, 4_500_000)):
        package = tmp_path / f"rapl/intel-rapl:{number}"
        package.mkdir(parents=True)
        (package / "energy_uj").write_text(f"{microjoules}\n")
    part = tmp_path / "rapl/intel-rapl:0:0"
    part.mkdir()
    (part / "energy_uj").write_text("1000000\n")

    text = aggregate(tmp_path, NodeDevices(rapl=tmp_path / "rapl")).decode()

    assert 'squadron_energy_joules_total{source="cpu"} 7.5' in text


def test_the_names_that_dashboards_may_use_are_those_that_are_given() -> None:
    gpus = tuple(read_gpus(TwoGpus()))
    cpu = CpuReading(busy=0.5, used_bytes=1, total_bytes=2)
    given = {
        sample.name.removesuffix("_total") if sample.name.startswith("nv_") else sample.name
        for family in device_metrics(NodeReading(gpus=gpus, cpu=cpu, energy_j={"cpu": 1.0}))
        for sample in family.samples
    }

    assert given == device_names()
