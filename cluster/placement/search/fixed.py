"""Placements that a configuration has decided: groups of their shapes, and of one more shape for
the models that are left to the planner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil

from cluster.placement.search.buckets import class_of, seconds_alone
from cluster.placement.search.candidate import Group
from cluster.placement.search.facts import Demand, Fixed
from cluster.placement.search.groups import Layout, layout_of, name_of, shapes
from cluster.placement.search.plan import Rejected
from cluster.placement.search.stages import Degrees, Ground, why_not
from cluster.topology import Site, Topology


def settle(topology: Topology, demands: tuple[Demand, ...]) -> tuple[Demand, ...]:
    """With what cannot be kept left aside: shapes that a model does not have, then the largest
    ones until the devices do for a group of each that is left."""
    count = len(topology.sites())
    settled = tuple(map(_held_against_its_model, demands))
    needed = _needed(settled)
    why = f"fixed placements need {needed} devices of their own together, there are {count}"
    while _needed(settled) > count:
        largest = max(fixed.num_devices for fixed in _kept(settled))
        settled = tuple(
            replace(demand, left_aside=why)
            if demand.kept and demand.kept.num_devices == largest
            else demand
            for demand in settled
        )
    return settled


def leave_all_aside(
    demands: tuple[Demand, ...], rejected: Sequence[Rejected]
) -> tuple[Demand, ...]:
    """Because no division of the devices had a place for every model."""
    last = f": {rejected[-1].why}" if rejected else ""
    why = f"with the fixed placements not every model has a place{last}"
    return tuple(replace(each, left_aside=why) if each.kept else each for each in demands)


def fixed_layouts(topology: Topology, demands: tuple[Demand, ...]) -> tuple[Layout, ...]:
    """Divisions with groups of every shape that is fixed, by rising size of the largest group.

    Models that are not fixed share those groups, or have groups of one more shape beside them."""
    sites = tuple(sorted(topology.sites(), key=lambda s: class_of(s.device), reverse=True))
    fixed: dict[Degrees, list[int]] = {}
    free: list[int] = []
    for model, demand in enumerate(demands):
        kept = demand.kept
        (fixed.setdefault(_shape(kept), []) if kept else free).append(model)
    found: dict[str, Layout] = {}
    loads = [demand.rate_per_s * seconds_alone(demand, topology) for demand in demands]
    for more in (None, *shapes(len(sites))):
        if more is not None and (not free or more in fixed):
            continue
        wanted = fixed if more is None else {**fixed, more: free}
        layout = _divide(topology, sites, wanted, demands, loads)
        if layout is not None:
            found.setdefault(layout.name, layout)
    return tuple(sorted(found.values(), key=lambda layout: layout.size))


def _held_against_its_model(demand: Demand) -> Demand:
    if demand.fixed is None:
        return demand
    why = why_not(demand.facts, _shape(demand.fixed), demand.fixed)
    return replace(demand, left_aside=why) if why else demand


def _kept(demands: Sequence[Demand]) -> list[Fixed]:
    return [demand.kept for demand in demands if demand.kept]


def _needed(demands: Sequence[Demand]) -> int:
    """Devices of one group of each shape."""
    return sum(shape.num_devices for shape in set(map(_shape, _kept(demands))))


def _shape(fixed: Fixed) -> Degrees:
    return Degrees(stages=fixed.stages, tensor=fixed.tensor)


def _divide(
    topology: Topology,
    sites: tuple[Site, ...],
    wanted: Mapping[Degrees, Sequence[int]],
    demands: Sequence[Demand],
    loads: Sequence[float],
) -> Layout | None:
    """None when the devices do not do, or not on one node where slices must be."""
    smallest = min(site.device.memory_bytes for site in sites)
    counts: dict[Degrees, int] = {}
    work: dict[Degrees, float] = {}
    for shape, models in wanted.items():
        weights = sum(demands[model].facts.weight_bytes for model in models)
        counts[shape] = max(1, ceil(weights / (shape.num_devices * smallest)))
        work[shape] = sum(loads[model] for model in models)
    if not _share_out(len(sites), counts, work):
        return None
    groups: list[Group] = []
    grounds: dict[str, Ground] = {}
    begin = 0
    # The widest first, so that slices find a node's devices together.
    for shape in sorted(counts, key=lambda s: (-s.tensor, -s.num_devices)):
        end = begin + counts[shape] * shape.num_devices
        part = layout_of(topology, sites[begin:end], shape)
        if part is None:
            return None
        groups += part.groups
        grounds |= part.grounds
        begin = end
    if begin < len(sites):
        rest = layout_of(topology, sites[begin:], Degrees())
        assert rest is not None  # Any device is a group of one.
        groups += rest.groups
        grounds |= rest.grounds
    return Layout(name=name_of(groups), groups=tuple(groups), grounds=grounds)


def _share_out(num_sites: int, counts: dict[Degrees, int], work: Mapping[Degrees, float]) -> bool:
    """One more group at a time for the shape with most work a group; False when there are too few
    devices to begin with."""
    spare = num_sites - sum(shape.num_devices * count for shape, count in counts.items())
    if spare < 0:
        return False
    while fitting := [shape for shape in counts if shape.num_devices <= spare]:
        busiest = max(fitting, key=lambda shape: work[shape] / counts[shape])
        counts[busiest] += 1
        spare -= busiest.num_devices
    return True
