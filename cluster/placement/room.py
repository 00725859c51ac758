"""What is left of a cluster's devices for what is planned next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cluster.placement.reservation import Reservation
from cluster.topology import Device, Node, Topology

SLACK = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Devices of one node that somebody takes, or less than one device."""

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
    """The devices that those leave whole, the largest needs served first, each on the node where it
    leaves least. A need that no node can serve takes nothing: it waits.

    Cores are shared: where none is left, all of them count again.
    """
    free = _free(topology, needs)
    whole = {
        node.name: [d for d, left in zip(node.devices, free[node.name], strict=True) if left == 1.0]
        for node in topology.nodes
    }
    cores = [node for node in topology.nodes if node.devices and node.devices[0].kind == "cpu"]
    if not any(whole[node.name] for node in cores):
        whole |= {node.name: list(node.devices) for node in cores}
    nodes = tuple(
        replace(node, devices=tuple(whole[node.name]))
        for node in topology.nodes
        if whole[node.name]
    )
    return replace(topology, nodes=nodes)


def shares_left(topology: Topology, needs: Sequence[Need]) -> Topology:
    """The GPUs that those leave in part, each as a node of its own: what is put on one stays in one
    process. What is left of the memory is left of the speed."""
    free = _free(topology, needs)
    nodes = tuple(
        replace(node, name=f"{node.name}/{device.name}", devices=(_part_of(device, left),))
        for node in topology.nodes
        for device, left in zip(node.devices, free[node.name], strict=True)
        if 0.0 < left < 1.0 and device.kind == "cuda"
    )
    return replace(topology, nodes=nodes, links={})


def _free(topology: Topology, needs: Sequence[Need]) -> dict[str, list[float]]:
    """What is left of each device. Shares go on the fullest device that has as much, as Ray puts
    them."""
    free = {node.name: [1.0] * len(node.devices) for node in topology.nodes}
    for need in sorted(needs, key=lambda need: -need.num_devices):
        serving = [free[node.name] for node in topology.nodes if _serves(node, need)]
        if need.num_devices < 1:
            _take_share(serving, need.num_devices)
        else:
            _take_whole(serving, round(need.num_devices))
    return free


def _take_share(serving: Sequence[list[float]], share: float) -> None:
    fitting = [
        (left, number, index)
        for number, devices in enumerate(serving)
        for index, left in enumerate(devices)
        if left >= share - SLACK
    ]
    if fitting:
        left, number, index = min(fitting)
        rest = left - share
        serving[number][index] = rest if rest > SLACK else 0.0


def _take_whole(serving: Sequence[list[float]], count: int) -> None:
    fitting = [devices for devices in serving if devices.count(1.0) >= count]
    if fitting:
        devices = min(fitting, key=lambda devices: devices.count(1.0))
        for index in [n for n, left in enumerate(devices) if left == 1.0][:count]:
            devices[index] = 0.0


def _part_of(device: Device, share: float) -> Device:
    return replace(
        device,
        share=share,
        memory_bytes=int(device.memory_bytes * share),
        whole_bytes=int(device.whole_bytes * share),
        flops_per_s=device.flops_per_s * share,
        memory_bytes_per_s=device.memory_bytes_per_s * share,
    )


def of_kind(topology: Topology, kind: str) -> Topology:
    """Its devices of that kind; `auto` is any."""
    nodes = tuple(n for n in topology.nodes if kind == "auto" or n.devices[0].kind == kind)
    return replace(topology, nodes=nodes)


def _serves(node: Node, need: Need) -> bool:
    labels = dict(node.labels)
    return node.devices[0].kind == need.kind and all(
        labels.get(key) == value for key, value in need.labels.items()
    )
