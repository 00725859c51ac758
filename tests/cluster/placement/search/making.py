"""Builders with defaults: one line says what matters to a test."""

from __future__ import annotations

from cluster.placement.search.facts import Demand, LayerFacts, ModelFacts
from cluster.topology import Device, Link, Node, Topology

GIB = 2**30
FAST = Link(bytes_per_s=1e12)


def model(
    kind: str = "m",
    *,
    num_layers: int = 4,
    seconds: float = 0.1,
    gib: float = 4.0,
    heads: int = 8,
    weight_bits: int = 16,
) -> ModelFacts:
    """Equal layers that take `seconds` together on a device of one FLOP a second."""
    layer = LayerFacts(flops=seconds / num_layers, weight_bytes=int(gib * GIB / num_layers))
    return ModelFacts(
        kind=kind,
        layers=(layer,) * num_layers,
        splits=(("heads", heads),),
        weight_bits=weight_bits,
    )


def cluster(num_nodes: int = 1, devices: int = 4, *, gib: float = 16.0) -> Topology:
    each = tuple(
        Device(
            name=f"cuda:{index}",
            kind="cuda",
            memory_bytes=int(gib * GIB),
            flops_per_s=1.0,
            memory_bytes_per_s=1e30,
        )
        for index in range(devices)
    )
    nodes = tuple(Node(name=f"node{n}", devices=each, link=FAST) for n in range(num_nodes))
    return Topology(nodes=nodes, network=FAST)


def demand(
    name: str = "m", facts: ModelFacts | None = None, *, rate: float = 1.0, slo_s: float = 1.0
) -> Demand:
    return Demand(name=name, facts=facts or model(), rate_per_s=rate, slo_s=slo_s)
