"""Models of like speed put together, so that a quick call does not queue behind a slow one."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from cluster.placement.search.facts import Demand
from cluster.placement.search.stages import Cut, Degrees, Ground, cut
from cluster.topology import Device, Node, Site, Topology

RATIO = 0.38
"""The quickest of a bucket takes at least this share of the slowest one's time. Source: AlpaServe's
`ModelParallelismSearch`, which found it by trying."""

MAX_BUCKETS = 4


def buckets(demands: Sequence[Demand], seconds: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """Indices of models by rising time of one request; one bucket when their times are alike."""
    order = sorted(range(len(demands)), key=lambda model: (seconds[model], model))
    found: list[list[int]] = []
    for model in order:
        is_alike = found and seconds[found[-1][0]] >= RATIO * seconds[model]
        if found and (is_alike or len(found) == MAX_BUCKETS):
            found[-1].append(model)
        else:
            found.append([model])
    return tuple(tuple(sorted(bucket)) for bucket in found)


def seconds_alone(demand: Demand, topology: Topology) -> float:
    """One request on one of the fastest devices, whether or not the memory would do."""
    node = fastest(topology)
    ground = Ground(device=node.devices[0], inside=node.link, between=node.link)
    found = cut(demand.facts, Degrees(), ground)
    return found.total_s if isinstance(found, Cut) else 0.0


def share_out(
    sites: Sequence[Site],
    parts: Sequence[Sequence[int]],
    demands: Sequence[Demand],
    seconds: Sequence[float],
) -> tuple[tuple[Site, ...], ...] | None:
    """Devices of each bucket in runs, by the work it brings, but enough for its weights; None when
    there are too few."""
    smallest = min(site.device.memory_bytes for site in sites)
    weights = [sum(demands[m].facts.weight_bytes for m in part) for part in parts]
    needed = [max(1, ceil(weight / smallest)) for weight in weights]
    spare = len(sites) - sum(needed)
    if spare < 0:
        return None
    loads = [sum(demands[m].rate_per_s * seconds[m] for m in part) for part in parts]
    total = sum(loads) or 1.0
    wanted = [
        max(0.0, load / total * len(sites) - n) for load, n in zip(loads, needed, strict=True)
    ]
    scale = spare / (sum(wanted) or 1.0)
    counts = [n + int(want * scale) for n, want in zip(needed, wanted, strict=True)]
    counts[max(range(len(parts)), key=lambda part: loads[part])] += len(sites) - sum(counts)
    found: list[tuple[Site, ...]] = []
    begin = 0
    for count in counts:
        found.append(tuple(sites[begin : begin + count]))
        begin += count
    return tuple(found)


DeviceClass = tuple[float, int, float, str]


def class_of(device: Device) -> DeviceClass:
    """What makes two devices interchangeable; a greater one is faster, or else larger."""
    return (
        device.flops_per_s,
        device.memory_bytes,
        device.memory_bytes_per_s,
        device.kind,
    )


def fastest(topology: Topology) -> Node:
    """The first node with devices of the greatest class."""
    return max(topology.nodes, key=lambda node: class_of(node.devices[-1]))
