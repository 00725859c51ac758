"""On what a run was made: ratios may be compared across machines, figures may not."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("ray", "onnxruntime", "uvloop", "httptools", "numpy", "grpcio")


def fingerprint() -> dict[str, Any]:
    """Processor, cores, system, load, pressure and steal now, and the versions that matter."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
        "cpu_pressure_avg10": _pressure(),
        "steal_s": getattr(psutil.cpu_times(), "steal", 0.0),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _pressure() -> float | None:
    """Share of time some task waited for a processor, in percent over 10 s (Linux PSI)."""
    file = Path("/proc/pressure/cpu")
    if not file.exists():
        return None
    return float(file.read_text().partition("avg10=")[2].split()[0])
