"""What is left of a cluster's devices for what is planned next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cluster.placement.reservation import Reservation
from cluster.topology import Node, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Devices of one node that somebody takes."""

    num_devices: float
    kind: str = "cuda"
    labels: dict[str, str] = field(default_factory=dict)


def needs_of(reserved: Reservation, *, with_cores: bool = False) -> tuple[Need, ...]:
    """What one replica takes. `with_cores`: a core for each shard on a processor, too, where the
    planner gave it one."""
    found: list[Need] = []
    for bundle in reserved.bundles:
        num_cores = sum(not reserved.gpu_shares[rank] for rank in bundle.ranks)
        if bundle.num_gpus:
            found.append(Need(num_devices=bundle.num_gpus, labels=bundle.labels))
        if num_cores and with_cores:
            found.append(Need(num_devices=num_cores, kind="cpu", labels=bundle.labels))
    return tuple(found)


def left_over(topology: Topology, needs: Sequence[Need]) -> Topology:
    """The devices that those leave, the largest needs served first, each on the node where it
    leaves least. A need that no node can serve takes nothing: it waits.

    Cores are shared: where none is left, all of them count again.
    """
    free = {node.name: float(len(node.devices)) for node in topology.nodes}
    for need in sorted(needs, key=lambda need: -need.num_devices):
        fitting = [
            node
            for node in topology.nodes
            if _serves(node, need) and free[node.name] >= need.num_devices - 1e-6
        ]
        if fitting:
            free[min(fitting, key=lambda node: free[node.name]).name] -= need.num_devices
    left = {name: int(count + 1e-6) for name, count in free.items()}
    cores = [node for node in topology.nodes if node.devices and node.devices[0].kind == "cpu"]
    if not any(left[node.name] for node in cores):
        left |= {node.name: len(node.devices) for node in cores}
    nodes = tuple(
        replace(node, devices=node.devices[len(node.devices) - left[node.name] :])
        for node in topology.nodes
        if left[node.name]
    )
    return replace(topology, nodes=nodes)


def of_kind(topology: Topology, kind: str) -> Topology:
    """Its devices of that kind; `auto` is any."""
    nodes = tuple(n for n in topology.nodes if kind == "auto" or n.devices[0].kind == kind)
    return replace(topology, nodes=nodes)


def _serves(node: Node, need: Need) -> bool:
    labels = dict(node.labels)
    return node.devices[0].kind == need.kind and all(
        labels.get(key) == value for key, value in need.labels.items()
    )
