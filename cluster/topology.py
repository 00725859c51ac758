"""What there is to place models on: nodes, their devices, and the links between them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One CPU slot or GPU. Two devices with equal facts are of one class, wherever they are.
    `memory_bytes` may be taken; `whole_bytes` are written on the card, 0 where that is the same.
    `share`: what is left of it, where others are on it; memory and speeds are that share's."""

    name: str
    kind: str
    memory_bytes: int
    flops_per_s: float
    memory_bytes_per_s: float
    share: float = 1.0
    whole_bytes: int = 0

    @property
    def sold_bytes(self) -> int:
        """The size by which people name it."""
        return self.whole_bytes or self.memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """`latency_s`: of an empty message. `is_measured`: else it is what somebody wrote down."""

    bytes_per_s: float
    latency_s: float = 0.0
    is_measured: bool = False

    def seconds(self, num_bytes: float) -> float:
        return self.latency_s + num_bytes / self.bytes_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`link` joins its devices to each other."""

    name: str
    devices: tuple[Device, ...]
    link: Link
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A device on its node, with what the node is labelled."""

    node: str
    device: Device
    labels: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.node}/{self.device.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """`network` joins nodes where `links` (names of two nodes, sorted -> link) says nothing else.

    `handover_s`: what giving a batch to the next stage costs beside its bytes; `request_s`: what a
    request costs outside the devices.
    """

    nodes: tuple[Node, ...]
    network: Link
    links: dict[tuple[str, str], Link] = field(default_factory=dict)
    handover_s: float = 0.0
    request_s: float = 0.0

    def sites(self) -> tuple[Site, ...]:
        return tuple(
            Site(node=node.name, device=device, labels=node.labels)
            for node in self.nodes
            for device in node.devices
        )

    def link(self, one: str, other: str) -> Link:
        """Between two devices, by the names of their nodes."""
        if one == other:
            return next(node.link for node in self.nodes if node.name == one)
        return self.links.get((min(one, other), max(one, other)), self.network)
