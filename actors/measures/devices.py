"""Reads a node's GPUs (NVML), its processors and memory (/proc) and their energy (RAPL), where they
can be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric

from actors.measures.machine import PROC, Machine
from cluster.observability.device_metrics import GpuReading, NodeReading, device_metrics
from cluster.optimization.profile.energy import RAPL, read_joules

logger = logging.getLogger("squadron.metrics")


class NodeDevices:
    """A collector for prometheus_client, of a door. Finds out once what there is, and says why
    something is not."""

    def __init__(self, rapl: Path = RAPL, proc: Path = PROC) -> None:
        self._rapl = rapl
        self._machine = Machine(proc)
        self._nvml, reason = _open_nvml()
        if self._nvml is None:
            logger.info("no GPU metrics: %s", reason)
        if read_joules(rapl) is None:
            logger.info("the processors' energy is not readable (%s)", rapl)

    def collect(self) -> Iterator[Metric]:
        return device_metrics(self.read())

    def read(self) -> NodeReading:
        gpus = () if self._nvml is None else tuple(read_gpus(self._nvml))
        joules = {"cpu": read_joules(self._rapl)}
        counted = [gpu.energy_j for gpu in gpus if gpu.energy_j is not None]
        if counted:
            joules["gpu"] = sum(counted)
        known = {source: value for source, value in joules.items() if value is not None}
        return NodeReading(gpus=gpus, cpu=self._machine.read(), energy_j=known)


def read_gpus(nvml: Any) -> Iterator[GpuReading]:
    """`nvml`: the module `pynvml`. NVML counts milliwatts and millijoules."""

    def asked(what: Callable[..., Any], *arguments: Any) -> Any:
        # Older and virtual GPUs do not know every one of them.
        try:
            return what(*arguments)
        except nvml.NVMLError:
            return None

    for index in range(asked(nvml.nvmlDeviceGetCount) or 0):
        gpu = asked(nvml.nvmlDeviceGetHandleByIndex, index)
        if gpu is None:
            continue
        busy = asked(nvml.nvmlDeviceGetUtilizationRates, gpu)
        memory = asked(nvml.nvmlDeviceGetMemoryInfo, gpu)
        uuid = asked(nvml.nvmlDeviceGetUUID, gpu)
        yield GpuReading(
            uuid=uuid.decode() if isinstance(uuid, bytes) else str(uuid or ""),
            index=index,
            busy=None if busy is None else busy.gpu / 100,
            used_bytes=None if memory is None else memory.used,
            total_bytes=None if memory is None else memory.total,
            power_w=_thousandth(asked(nvml.nvmlDeviceGetPowerUsage, gpu)),
            power_limit_w=_thousandth(asked(nvml.nvmlDeviceGetEnforcedPowerLimit, gpu)),
            energy_j=_thousandth(asked(nvml.nvmlDeviceGetTotalEnergyConsumption, gpu)),
            temperature_c=asked(nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU),
        )


def _open_nvml() -> tuple[Any, str]:
    """`pynvml`, or None and the reason."""
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return None, str(error)
    return pynvml, ""


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
