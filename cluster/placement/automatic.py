"""What `strategy: auto` becomes on a cluster: the planner is asked, and its reason is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cluster.config.placement import PlacementConfig
from cluster.errors import ConfigError
from cluster.placement.estimates.described import demand_of
from cluster.placement.partition import MIB
from cluster.placement.search.candidate import Evaluate
from cluster.placement.search.facts import Demand, ModelFacts
from cluster.placement.search.find_plan import find_plan
from cluster.placement.search.groups import Layout as Groups
from cluster.placement.search.plan import Plan, PlannedReplica, Shortage
from cluster.topology import Node, Topology

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)
AS_GOOD = 0.005
"""Attainments that differ by less are the noise of a drawn trace: the fewer devices win."""
PLANNED = {"strategy", "shards", "tensor", "shard_map", "devices", "demand"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A section that says what the planner decided, and why."""

    config: PlacementConfig
    reason: str


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
    well as with any more. `max_memory_mb` bounds what a device may hold.

    Raises: ConfigError saying what is short when no shape fits.
    """
    demands = (demand_of(name, config.demand, facts),)
    ground = _capped(topology, config.max_memory_mb)
    evaluate = evaluate_for(demands)
    count = len(ground.sites())
    tried: list[tuple[int, Plan]] = []
    for size in [size for size in SIZES if size * replicas <= count]:

        def is_allowed(layout: Groups, size: int = size) -> bool:
            degrees = layout.groups[0].degrees
            return degrees.num_devices == size and config.tensor in (1, degrees.tensor)

        part = _first(ground, size * replicas)
        found = find_plan(part, demands, evaluate, is_allowed=is_allowed)
        if isinstance(found, Plan):
            tried.append((size, found))
            if found.attainment > 1.0 - AS_GOOD:
                break
    if not tried:
        return _beyond(config, topology, find_plan(ground, demands, evaluate))
    best = max(plan.attainment for _, plan in tried)
    size, plan = next(each for each in tried if each[1].attainment >= best - AS_GOOD)
    others = [
        f"{number} {'device' if number == 1 else 'devices'} a replica: {other.attainment:.1%}"
        for number, other in tried
        if number != size
    ]
    reasons = [f"auto: {plan.replicas[0].reason}", plan.reasons[0], *others]
    return Chosen(config=_settled(config, plan.replicas[0]), reason="; ".join(reasons))


def _beyond(config: PlacementConfig, topology: Topology, found: Plan | Shortage) -> Chosen:
    """What is done where no shape of a replica fits."""
    message = (
        found.message
        if isinstance(found, Shortage)
        else f"no shape fits with slices of {config.tensor} and so many replicas"
    )
    if config.max_memory_mb is not None and _is_of_processors(topology):
        # Processes may outnumber the cores: the cap is theirs, not the machine's.
        return Chosen(config=config, reason=f"auto: {message}; so shards share cores")
    raise ConfigError(
        f"placement.strategy auto: {message}",
        key="placement.strategy",
        value="auto",
        allowed="what fits",
    )


def _settled(config: PlacementConfig, replica: PlannedReplica) -> PlacementConfig:
    degrees = replica.degrees
    kept = config.model_dump(exclude=PLANNED, exclude_unset=True)
    told: dict[str, object] = {"strategy": degrees.strategy}
    if degrees.num_devices > 1:
        kinds = [shard.site.device for shard in replica.shards]
        told["shards"] = degrees.num_devices
        told["devices"] = [
            "cpu" if device.kind == "cpu" else f"cuda:{rank}" for rank, device in enumerate(kinds)
        ]
        if degrees.stages > 1:
            told["tensor"] = degrees.tensor
    return PlacementConfig.model_validate({**kept, **told})


def _first(topology: Topology, count: int) -> Topology:
    """The first devices, node by node."""
    nodes: list[Node] = []
    for node in topology.nodes:
        taken = node.devices[: max(0, count)]
        count -= len(taken)
        if taken:
            nodes.append(replace(node, devices=taken))
    names = {node.name for node in nodes}
    links = {pair: link for pair, link in topology.links.items() if names.issuperset(pair)}
    return replace(topology, nodes=tuple(nodes), links=links)


def _capped(topology: Topology, max_memory_mb: float | None) -> Topology:
    if max_memory_mb is None:
        return topology
    cap = int(max_memory_mb * MIB)
    return replace(
        topology,
        nodes=tuple(
            replace(
                node,
                devices=tuple(
                    replace(device, memory_bytes=min(device.memory_bytes, cap))
                    for device in node.devices
                ),
            )
            for node in topology.nodes
        ),
    )


def _is_of_processors(topology: Topology) -> bool:
    return all(site.device.kind == "cpu" for site in topology.sites())
