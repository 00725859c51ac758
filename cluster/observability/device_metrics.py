"""A node's devices as they are when somebody asks: read by the door that answers, so that several
processes do not count them several times. Triton's names beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

_GPU = ("gpu_uuid", "gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """Of one GPU. None: its driver does not say. Units: watts, joules since the driver was loaded,
    degrees Celsius; `busy` is a share of 1."""

    uuid: str
    index: int
    busy: float | None = None
    used_bytes: int | None = None
    total_bytes: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuReading:
    """Of the whole machine, as Triton has it. `busy`: a share of 1 since the reading before, None
    at the first one."""

    busy: float | None
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """`energy_j`: joules by source (`cpu`, `gpu`), without those that cannot be read."""

    gpus: tuple[GpuReading, ...] = ()
    cpu: CpuReading | None = None
    energy_j: Mapping[str, float]


_GAUGES = {
    "busy": ("nv_gpu_utilization", "Share of time that a kernel ran, 0 to 1."),
    "used_bytes": ("nv_gpu_memory_used_bytes", "GPU memory in use."),
    "total_bytes": ("nv_gpu_memory_total_bytes", "GPU memory."),
    "power_w": ("nv_gpu_power_usage", "GPU power, watts."),
    "power_limit_w": ("nv_gpu_power_limit", "The most power that the GPU may take, watts."),
    "temperature_c": ("squadron_gpu_temperature_celsius", "Of the GPU's die."),
}


_OF_CPU = {
    "busy": ("nv_cpu_utilization", "Share of the processors' time in use, 0 to 1."),
    "used_bytes": ("nv_cpu_memory_used_bytes", "Memory of the machine in use."),
    "total_bytes": ("nv_cpu_memory_total_bytes", "Memory of the machine."),
}


def device_metrics(reading: NodeReading) -> Iterator[Metric]:
    """What is not readable has no line, rather than a zero."""
    for field, (name, text) in _GAUGES.items():
        yield from _family(GaugeMetricFamily(name, text, labels=_GPU), reading.gpus, field)
    for field, (name, text) in _OF_CPU.items():
        value = getattr(reading.cpu, field, None)
        if value is not None:
            yield GaugeMetricFamily(name, text, value=float(value))
    energy = CounterMetricFamily("nv_energy_consumption", "GPU energy, joules.", labels=_GPU)
    yield from _family(energy, reading.gpus, "energy_j")
    joules = CounterMetricFamily(
        "squadron_energy_joules", "Energy of the node's processors.", labels=("source",)
    )
    for source, value in reading.energy_j.items():
        joules.add_metric((source,), value)
    if joules.samples:
        yield joules


def device_names() -> frozenset[str]:
    """Every name that `device_metrics` may give, as Prometheus sees it."""
    names = {name for name, _ in (*_GAUGES.values(), *_OF_CPU.values())}
    return frozenset({*names, "nv_energy_consumption", "squadron_energy_joules_total"})


def _family(
    family: GaugeMetricFamily | CounterMetricFamily, gpus: Sequence[GpuReading], field: str
) -> Iterator[Metric]:
    for gpu in gpus:
        value = getattr(gpu, field)
        if value is not None:
            family.add_metric((gpu.uuid, str(gpu.index)), float(value))
    if family.samples:
        yield family
