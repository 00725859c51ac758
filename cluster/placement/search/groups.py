"""How the devices of a cluster can be divided into groups that work as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from cluster.placement.search.buckets import DeviceClass, class_of
from cluster.placement.search.candidate import Cuts, Group
from cluster.placement.search.facts import Demand
from cluster.placement.search.stages import Degrees, Ground, cut
from cluster.topology import Site, Topology

MAX_STAGES = 8
MAX_TENSOR = 8
"""AlpaServe searches up to 8 stages and 4 slices; nodes of today join 8 GPUs by a switch."""
SMALL = 8
"""Devices up to which odd sizes are tried too: what 3 devices can hold must not ask for 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One division of some devices. `name`: as it is told to people."""

    name: str
    groups: tuple[Group, ...]
    grounds: dict[str, Ground]

    @property
    def size(self) -> int:
        """Devices of its largest group."""
        return max(group.degrees.num_devices for group in self.groups)


def layouts(topology: Topology, sites: tuple[Site, ...]) -> tuple[Layout, ...]:
    """Groups of devices of one class in every shape of stages and slices, by rising size: powers
    of two, what divides the devices, and any size in a small cluster. Slices of a stage share a
    node; what is left over becomes smaller groups."""
    found: list[Layout] = []
    for degrees in shapes(len(sites)):
        layout = layout_of(topology, sites, degrees)
        if layout is not None:
            found.append(layout)
    return tuple(found)


def shapes(num_sites: int) -> tuple[Degrees, ...]:
    """Of groups of so many devices at most, by rising size."""
    return tuple(degrees for size in _sizes(num_sites) for degrees in _shapes(size))


def _sizes(num_sites: int) -> list[int]:
    odd = {size for size in range(1, MAX_STAGES + 1) if num_sites <= SMALL or num_sites % size == 0}
    return sorted(size for size in odd | {2**n for n in range(7)} if size <= num_sites)


def cuts_of(layout: Layout, demands: tuple[Demand, ...]) -> Cuts:
    """Every model on every kind of group."""
    degrees = {group.kind: group.degrees for group in layout.groups}
    return Cuts(
        demands=demands,
        by_kind={
            kind: tuple(
                cut(demand.facts, degrees[kind], ground, demand.concurrency, demand.kept)
                for demand in demands
            )
            for kind, ground in layout.grounds.items()
        },
    )


def _shapes(size: int) -> Iterator[Degrees]:
    for tensor in range(1, min(size, MAX_TENSOR) + 1):
        if size % tensor == 0 and size // tensor <= MAX_STAGES:
            yield Degrees(stages=size // tensor, tensor=tensor)


def layout_of(topology: Topology, sites: tuple[Site, ...], degrees: Degrees) -> Layout | None:
    """None when no class of devices makes a group of that shape; where only one of them does, the
    others make smaller ones."""
    groups: list[Group] = []
    grounds: dict[str, Ground] = {}
    for same in _classes(sites):
        _fill(topology, same, degrees, groups, grounds)
    if all(group.degrees != degrees for group in groups):
        return None
    return Layout(name=name_of(groups), groups=tuple(groups), grounds=grounds)


def _classes(sites: tuple[Site, ...]) -> list[list[Site]]:
    """Equal devices, the fastest first, however the nodes that have them are ordered."""
    found: dict[DeviceClass, list[Site]] = {}
    for site in sites:
        found.setdefault(class_of(site.device), []).append(site)
    return [found[kind] for kind in sorted(found, reverse=True)]


def _fill(
    topology: Topology,
    free: list[Site],
    degrees: Degrees,
    groups: list[Group],
    grounds: dict[str, Ground],
) -> None:
    rows = _rows(free, degrees.tensor)
    num_whole = len(rows) // degrees.stages * degrees.stages
    for begin in range(0, num_whole, degrees.stages):
        taken = [site for row in rows[begin : begin + degrees.stages] for site in row]
        group, ground = _join(topology, taken, degrees)
        groups.append(group)
        grounds[group.kind] = ground
    used = {site for row in rows[:num_whole] for site in row}
    rest = [site for site in free if site not in used]
    if not rest or degrees.num_devices == 1:
        return
    is_tensor = degrees.tensor > 1 and (degrees.stages == 1 or len(rows) == num_whole)
    smaller = (
        Degrees(stages=degrees.stages, tensor=degrees.tensor // 2)
        if is_tensor
        else Degrees(stages=degrees.stages // 2, tensor=degrees.tensor)
    )
    _fill(topology, rest, smaller, groups, grounds)


def _rows(sites: list[Site], tensor: int) -> list[list[Site]]:
    """Runs of devices of one node."""
    rows: list[list[Site]] = []
    for _, on_node in groupby(sites, key=lambda site: site.node):
        here = list(on_node)
        rows += [here[at : at + tensor] for at in range(0, len(here) - tensor + 1, tensor)]
    return rows


def _join(topology: Topology, sites: list[Site], degrees: Degrees) -> tuple[Group, Ground]:
    inside = topology.link(sites[0].node, sites[0].node)
    hops = [
        topology.link(sites[n - 1].node, sites[n].node)
        for n in range(degrees.tensor, len(sites), degrees.tensor)
    ]
    # The slowest hop sets the pace of all.
    between = min(hops, key=lambda link: link.bytes_per_s, default=inside)
    # Without its name: what is known of a cut then holds for every group of the kind.
    device = replace(sites[0].device, name="")
    kind = f"{device.kind}/{device.memory_bytes}/{degrees}/{between.bytes_per_s:g}"
    kind += f"/{between.latency_s:g}/{inside.bytes_per_s:g}"
    ground = Ground(device=device, inside=inside, between=between, handover_s=topology.handover_s)
    group = Group(sites=tuple(sites), degrees=degrees, kind=kind, memory_bytes=device.memory_bytes)
    return group, ground


def name_of(groups: list[Group]) -> str:
    """How many groups of each shape."""
    counts: dict[str, int] = {}
    for group in groups:
        counts[str(group.degrees)] = counts.get(str(group.degrees), 0) + 1
    return ", ".join(f"{count} x {name}" for name, count in counts.items())
