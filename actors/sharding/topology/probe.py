"""What one node has, seen from a process on it."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil

MIB = 2**20
REPEATS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProbe:
    """`gpus`: (product, bytes). Speeds are those of one core, None where they were not measured."""

    cores: int
    memory_bytes: int
    gpus: tuple[tuple[str, int], ...] = ()
    flops_per_s: float | None = None
    memory_bytes_per_s: float | None = None


def probe(*, measure: bool) -> NodeProbe:
    """`measure` takes half a second."""
    return NodeProbe(
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        gpus=found_gpus(),
        flops_per_s=_flops_per_s() if measure else None,
        memory_bytes_per_s=_bytes_per_s() if measure else None,
    )


def found_gpus() -> tuple[tuple[str, int], ...]:
    """By nvidia-smi, which needs no CUDA context; none where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        told = subprocess.run(
            [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = (line.rpartition(",") for line in told.splitlines() if "," in line)
    return tuple((name.strip(), int(mib) * MIB) for name, _, mib in rows)


def _flops_per_s() -> float:
    """A float32 product as a layer has it, by seconds of the processor: others may be at work."""
    import torch

    torch.set_num_threads(1)
    rows, size = 64, 1024
    inputs, weights = torch.randn(rows, size), torch.randn(size, size)
    return 2.0 * rows * size * size / _seconds(lambda: inputs @ weights)


def _bytes_per_s() -> float:
    """Read and written by a copy that is larger than the caches."""
    source = np.ones(8 * MIB)
    target = np.empty_like(source)
    return 2.0 * source.nbytes / _seconds(lambda: np.copyto(target, source))


def _seconds(run: Callable[[], object]) -> float:
    run()
    took = []
    for _ in range(REPEATS):
        began_s, count = time.process_time(), 0
        while (passed_s := time.process_time() - began_s) < 0.02:
            run()
            count += 1
        took.append(passed_s / count)
    return statistics.median(took)
