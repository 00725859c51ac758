"""The answer to a device that an engine or this machine has not."""

from __future__ import annotations

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
