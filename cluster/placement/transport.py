"""By which transport activations go from one shard to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.config.placement import Transport
from cluster.errors import ConfigError

Way = Literal["shared_memory", "unix", "tcp", "gloo", "nccl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportChoice:
    way: Way
    reason: str


def choose_transport(
    configured: Transport, *, is_same_node: bool, devices: tuple[str, str]
) -> TransportChoice:
    """The configured way, else the fastest one that works there (`loadtests/sharding/hops.py`).

    Raises: ConfigError for a way that cannot reach the other shard, naming the devices.
    """
    on_cuda = all(device.startswith("cuda") for device in devices)
    between = f"{devices[0]} to {devices[1]}{'' if is_same_node else ' on another node'}"
    if configured == "nccl" and not on_cuda:
        raise _refuse(configured, f"{between}: NCCL moves tensors between GPUs", "auto")
    if configured in ("shared_memory", "unix") and not is_same_node:
        raise _refuse(configured, f"{between}: it ends at the node", "auto, tcp, gloo")
    if configured != "auto":
        return TransportChoice(way=configured, reason="as configured")
    if on_cuda and devices[0] != devices[1]:
        return TransportChoice(way="nccl", reason="between GPUs")
    if is_same_node:
        return TransportChoice(way="shared_memory", reason="one copy, on one node")
    return TransportChoice(way="tcp", reason="between nodes")


def _refuse(way: str, why: str, allowed: str) -> ConfigError:
    return ConfigError(
        f"placement.transport {way} cannot be used from {why}; allowed: {allowed}",
        key="placement.transport",
        value=way,
        allowed=allowed,
    )
