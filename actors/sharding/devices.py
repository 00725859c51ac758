"""Which GPU a shard's process calls its own."""

from __future__ import annotations

from collections.abc import Mapping


def own_device(device: str, environment: Mapping[str, str]) -> str:
    """Ray shows a process only the GPU that it reserved for it, and that one is then number 0."""
    shown = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if not device.startswith("cuda") or shown == [""] or len(shown) > 1:
        return device
    return "cuda:0"
