"""Which GPU a shard's process calls its own, and what its group can talk over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal


def own_device(device: str, environment: Mapping[str, str]) -> str:
    """Ray shows a process only the GPU that it reserved for it, and that one is then number 0."""
    shown = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if not device.startswith("cuda") or shown == [""] or len(shown) > 1:
        return device
    return "cuda:0"


def backend_of(devices: Sequence[str], nodes: Sequence[object]) -> Literal["nccl", "gloo"]:
    """NCCL where every process has a GPU of its own: it refuses two ranks on one."""
    if not all(device.startswith("cuda") for device in devices):
        return "gloo"
    return "nccl" if len(set(zip(nodes, devices, strict=True))) == len(devices) else "gloo"
