"""A topology file: nodes, devices, links, and what the models on them are asked for."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from cluster.config.planning.demand import PlannedModelConfig
from cluster.config.section import Section
from cluster.topology import Device, Link, Node, Topology

GIB = 2**30


class LinkConfig(Section):
    """Gigabytes a second and microseconds; `measured` says that they were."""

    gb_per_s: float = Field(gt=0)
    latency_us: float = Field(default=0.0, ge=0)
    measured: bool = False

    def to_link(self) -> Link:
        return Link(
            bytes_per_s=self.gb_per_s * 1e9,
            latency_s=self.latency_us / 1e6,
            is_measured=self.measured,
        )


class DevicesConfig(Section):
    """Equal devices of a node. `tflops` at the models' precision, as models reach it; `usable`: the
    share of the memory that weights, caches and activations may take."""

    kind: str = "cuda"
    count: int = Field(default=1, ge=1, le=1024)
    memory_gib: float = Field(gt=0)
    tflops: float = Field(gt=0)
    memory_gb_per_s: float = Field(gt=0)
    usable: float = Field(default=0.9, gt=0, le=1)

    def to_devices(self) -> tuple[Device, ...]:
        return tuple(
            Device(
                name=f"{self.kind}:{index}",
                kind=self.kind,
                memory_bytes=int(self.memory_gib * GIB * self.usable),
                flops_per_s=self.tflops * 1e12,
                memory_bytes_per_s=self.memory_gb_per_s * 1e9,
                whole_bytes=int(self.memory_gib * GIB),
            )
            for index in range(self.count)
        )


class NodeConfig(Section):
    """`count` equal nodes are named `<name>-0`, `<name>-1`, …; `link` joins devices of one node."""

    name: str = Field(min_length=1)
    count: int = Field(default=1, ge=1, le=4096)
    devices: DevicesConfig
    link: LinkConfig = LinkConfig(gb_per_s=16.0, latency_us=10.0)
    labels: dict[str, str] = Field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        return (
            (self.name,)
            if self.count == 1
            else tuple(f"{self.name}-{n}" for n in range(self.count))
        )

    def to_nodes(self) -> tuple[Node, ...]:
        devices = self.devices.to_devices()
        labels = tuple(sorted(self.labels.items()))
        return tuple(
            Node(name=name, devices=devices, link=self.link.to_link(), labels=labels)
            for name in self.names()
        )


class NodeLinkConfig(LinkConfig):
    """The link between two nodes, where it is not the `network`."""

    between: tuple[str, str]


class TopologyFile(Section):
    """`handover_us`: what giving a batch to the next stage costs beside its bytes; `request_us`:
    what a request costs outside the devices. `models` are the names of a configuration's variants,
    or stand for themselves."""

    nodes: tuple[NodeConfig, ...] = Field(min_length=1)
    network: LinkConfig = LinkConfig(gb_per_s=1.25, latency_us=50.0)
    links: tuple[NodeLinkConfig, ...] = ()
    handover_us: float = Field(default=200.0, ge=0)
    request_us: float = Field(default=1000.0, ge=0)
    models: dict[str, PlannedModelConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_hold_together(self) -> Self:
        names = [name for node in self.nodes for name in node.names()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"nodes: the name {twice[0]!r} is taken twice")
        for link in self.links:
            for name in link.between:
                if name not in names:
                    raise ValueError(f"links: no node {name!r}; allowed: {', '.join(names[:20])}")
        return self

    def to_topology(self) -> Topology:
        return Topology(
            nodes=tuple(node for each in self.nodes for node in each.to_nodes()),
            network=self.network.to_link(),
            links={(min(link.between), max(link.between)): link.to_link() for link in self.links},
            handover_s=self.handover_us / 1e6,
            request_s=self.request_us / 1e6,
        )
