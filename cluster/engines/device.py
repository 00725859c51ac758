"""The answer to a device that an engine or this machine has not."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.config.device import Device
from cluster.errors import ConfigError


def refuse_device(device: Device, engine: str, offered: str) -> ConfigError:
    """The error of a device that this engine or machine has not; `offered`: what it has."""
    return ConfigError(
        f"engine {engine} cannot use device {str(device)!r} on this machine; it offers: {offered}",
        key="device",
        value=str(device),
        allowed=offered,
    )


GPU_FILES = ("dev/nvidiactl", "dev/nvidia0", "dev/nvhost-gpu", "dev/nvgpu", "dev/dxg", "dev/kfd")
"""What the drivers make: NVIDIA's, Jetson's, Windows' in WSL, AMD's."""


def may_have_gpu(root: Path = Path("/")) -> bool:
    """False only where nothing speaks for a GPU that `cuda` could mean. Loads no runtime."""
    if not (root / "proc/self").exists():
        return True  # not Linux: the engine will know
    if shutil.which("nvidia-smi") is not None:
        return True
    return any((root / name).exists() for name in GPU_FILES)


def use_torch_threads(num: int) -> None:
    """PyTorch computes with `num` intra-op threads from now on (in this thread, and in threads
    that have not computed yet)."""
    import torch

    if torch.get_num_threads() != num:
        torch.set_num_threads(num)
