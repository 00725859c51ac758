"""What `strategy: auto` becomes on a cluster: the planner is asked, and its reason is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil

from cluster.config.placement import PlacementConfig
from cluster.errors import ConfigError
from cluster.placement.estimates.described import demand_of
from cluster.placement.partition import MIB
from cluster.placement.search.buckets import DeviceClass, class_of
from cluster.placement.search.candidate import Evaluate
from cluster.placement.search.facts import Demand, ModelFacts
from cluster.placement.search.find_plan import find_plan
from cluster.placement.search.groups import Layout as Groups
from cluster.placement.search.plan import Plan, PlannedReplica, Shortage, told_site
from cluster.topology import Node, Topology
from cluster.units import human_bytes

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)
CONTEXT_BYTES = 512 * MIB
"""Of a card for each process that computes on it, beside what that process puts there."""
AS_GOOD = 0.005
"""Attainments that differ by less are the noise of a drawn trace: the fewer devices win."""
PLANNED = {"strategy", "shards", "tensor", "shard_map", "devices", "demand"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A section that says what the planner decided, and why. `num_gpus`: what a replica that
    stays whole takes, a share of one where that will do."""

    config: PlacementConfig
    reason: str
    num_gpus: float = 0.0


def is_open(config: PlacementConfig) -> bool:
    """Whether anything is left to plan: who counts shards or names devices has decided."""
    return config.strategy == "auto" and config.shards is None and not config.devices


def choose(
    name: str,
    config: PlacementConfig,
    facts: ModelFacts,
    topology: Topology,
    evaluate_for: Callable[[tuple[Demand, ...]], Evaluate],
    *,
    replicas: int = 1,
) -> Chosen:
    """The shape of a replica: of the fewest devices with which so many replicas meet the demand as
    well as with any more. `max_memory_mb` bounds the weights that a device may hold.

    Raises: ConfigError saying what is short when no shape fits.
    """
    if not topology.nodes:
        raise _refuse("no device is left for it", topology)
    if config.max_memory_mb is not None:
        facts = replace(facts, max_weight_bytes=int(config.max_memory_mb * MIB))
    demands = (demand_of(name, config.demand, facts),)
    evaluate = evaluate_for(demands)
    count = len(topology.sites())
    tried: list[tuple[int, Plan]] = []
    for size in [size for size in SIZES if size * replicas <= count]:

        def is_allowed(layout: Groups, size: int = size) -> bool:
            # One section describes them all.
            is_even = all(group.degrees.num_devices == size for group in layout.groups)
            return is_even and config.tensor in (1, layout.groups[0].degrees.tensor)

        for part in _parts(topology, size, replicas):
            found = find_plan(part, demands, evaluate, is_allowed=is_allowed)
            if isinstance(found, Plan):
                tried.append((size, found))
        if tried and max(plan.attainment for _, plan in tried) > 1.0 - AS_GOOD:
            break
    if not tried:
        return _beyond(config, topology, replicas, find_plan(topology, demands, evaluate))
    best = max(plan.attainment for _, plan in tried)
    size, plan = next(each for each in tried if each[1].attainment >= best - AS_GOOD)
    others = [
        f"{number} {'device' if number == 1 else 'devices'} a replica: {other.attainment:.1%}"
        for number, other in tried
        if number != size
    ]
    reasons = [f"auto: {plan.replicas[0].reason}", plan.reasons[0], *others]
    num_gpus = gpu_share(plan) if size == 1 else 0.0
    if 0 < num_gpus < 1:
        reasons.insert(1, f"{num_gpus:g} of a GPU, which others may share")
    return Chosen(
        config=_settled(config, plan.replicas[0]), reason="; ".join(reasons), num_gpus=num_gpus
    )


def gpu_share(plan: Plan) -> float:
    """What a copy that stays whole takes of a GPU: the greater of its share of the memory and of
    the time, in hundredths, rounded up; 0 on a processor."""
    shard = plan.replicas[0].shards[0]
    device = shard.site.device
    if device.kind != "cuda":
        return 0.0
    held = (shard.bytes_held + CONTEXT_BYTES) / device.memory_bytes
    busy = max(each.busy for each in plan.devices if each.models)
    return min(1.0, ceil(max(held, busy) * device.share * 100) / 100)


def _beyond(
    config: PlacementConfig, topology: Topology, replicas: int, found: Plan | Shortage
) -> Chosen:
    """What is done where no shape of a replica fits."""
    message = (
        found.message
        if isinstance(found, Shortage)
        else f"no shape fits {replicas} times with slices of {config.tensor}"
    )
    if config.max_memory_mb is not None and _is_of_processors(topology):
        # Processes may outnumber the cores: the cap is theirs, not the machine's.
        return Chosen(config=config, reason=f"auto: {message}; so shards share cores")
    raise _refuse(message, topology)


def _refuse(message: str, topology: Topology) -> ConfigError:
    there = told(topology) or "no device"
    return ConfigError(
        f"placement.strategy auto: {message}; there is {there}",
        key="placement.strategy",
        value="auto",
        allowed=f"what fits in {there}",
    )


def told(topology: Topology) -> str:
    """Its devices in words, the fastest first."""
    counts = Counter(class_of(site.device) for site in topology.sites())
    return ", ".join(
        f"{count} x {kind} of {human_bytes(memory_bytes)}"
        for (_, memory_bytes, _, kind), count in sorted(counts.items(), reverse=True)
    )


def _settled(config: PlacementConfig, replica: PlannedReplica) -> PlacementConfig:
    """Shards that were planned on one node share one; which one is left to whatever there is when
    a replica starts, also in place of a node that is gone."""
    degrees = replica.degrees
    if degrees.num_devices == 1:
        # What is kept of the section otherwise is about shards.
        return PlacementConfig(strategy="single")
    kept = config.model_dump(exclude=PLANNED, exclude_unset=True)
    section: dict[str, object] = {"strategy": degrees.strategy, "shards": degrees.num_devices}
    section["devices"] = [told_site(shard.site) for shard in replica.shards]
    labels = {shard.site.node: dict(shard.site.labels) for shard in replica.shards}
    section["nodes"] = {node: found for node, found in labels.items() if found}
    if degrees.stages > 1:
        section["tensor"] = degrees.tensor
    if config.bundles == "auto":
        section["bundles"] = "PACK"
    return PlacementConfig.model_validate({**kept, **section})


def _parts(topology: Topology, size: int, replicas: int) -> list[Topology]:
    """So many groups' devices of one class, the fastest class first; of several where none has as
    many."""
    by_class: dict[DeviceClass, list[Node]] = {}
    for node in topology.nodes:
        if size > 1 and node.devices[0].share < 1:
            continue  # Shards of a group have a device each, whole.
        by_class.setdefault(class_of(node.devices[0]), []).append(node)
    classes = [by_class[kind] for kind in sorted(by_class, reverse=True)]
    count = size * replicas
    parts = [nodes for nodes in classes if sum(len(node.devices) for node in nodes) >= count]
    every = [[node for nodes in classes for node in nodes]]
    if sum(len(node.devices) for node in every[0]) < count:
        return []
    return [_first(topology, nodes, size, count) for nodes in parts or every]


def _first(topology: Topology, nodes: Sequence[Node], size: int, count: int) -> Topology:
    """On as few nodes as can be, and in runs that slices of a stage can be: they share a node."""
    largest = max(len(node.devices) for node in nodes)
    run = max(n for n in range(1, largest + 1) if size % n == 0)
    taken = dict.fromkeys((node.name for node in nodes), 0)
    for step in (run, 1):
        for node in sorted(nodes, key=lambda node: -len(node.devices)):
            free = len(node.devices) - taken[node.name]
            more = min(free, count) // step * step
            taken[node.name] += more
            count -= more
    kept = tuple(
        replace(node, devices=node.devices[: taken[node.name]])
        for node in topology.nodes
        if taken.get(node.name)
    )
    names = {node.name for node in kept}
    links = {pair: link for pair, link in topology.links.items() if names.issuperset(pair)}
    return replace(topology, nodes=kept, links=links)


def _is_of_processors(topology: Topology) -> bool:
    return all(site.device.kind == "cpu" for site in topology.sites())
