"""Which process of the application is on which node, and what it holds: for people to look at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from cluster.models import ShardFacts
from cluster.routing.table import GATEWAY, RoutingTable, VariantRoute

JsonObject = dict[str, object]

_SHARD = re.compile(r"squadron:(?P<variant>.+):(?P<replica>[^:]+):shard(?P<rank>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """`num_cpus`, `num_gpus`: what it offers, whoever holds it. `accelerator`: what Ray calls its
    GPUs ("H200"), "" where it knows no name."""

    node_id: str
    address: str
    is_alive: bool
    num_cpus: float
    num_gpus: float = 0.0
    accelerator: str = ""
    is_head: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSeen:
    """Of any Serve deployment of the application. `num_gpus`: that it reserves; `gpus`: which ones
    Ray gave it, by their numbers on its node."""

    node_id: str
    deployment: str
    replica: str
    state: str
    pid: int | None
    num_gpus: float = 0.0
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSeen:
    """An actor that lives, by its name in Ray; `gpus` as of a replica."""

    node_id: str
    name: str
    pid: int
    gpus: tuple[int, ...] = ()


def cluster_map(
    table: RoutingTable,
    nodes: Sequence[NodeSeen],
    replicas: Iterable[ReplicaSeen],
    actors: Iterable[ActorSeen],
) -> list[JsonObject]:
    """The nodes, each with its `processes`: doors with the variants that they hold themselves,
    replicas, and the shards of those that are cut. Dead nodes are left out."""
    variants = {r.deployment: r for r in table.routes.values() if isinstance(r, VariantRoute)}
    held = sorted(route.name for route in variants.values() if route.facts.is_colocated)
    found: dict[str, list[JsonObject]] = {node.node_id: [] for node in nodes if node.is_alive}
    alive: set[str] = set()
    for each in replicas:
        alive.add(each.replica)
        if (place := found.get(each.node_id)) is not None:
            place.append(_replica(each, variants, held))
    for actor in actors:
        named = _SHARD.fullmatch(actor.name)
        place = found.get(actor.node_id)
        if named is None or place is None or named["replica"] not in alive:
            continue
        route = table.routes.get(named["variant"])
        shards = route.facts.shards if isinstance(route, VariantRoute) else ()
        place.append(_shard(actor, named, shards))
    return [
        {**asdict(node), "processes": sorted(found[node.node_id], key=_order)}
        for node in sorted(nodes, key=lambda node: (not node.is_head, node.address, node.node_id))
        if node.is_alive
    ]


def _replica(
    seen: ReplicaSeen, variants: Mapping[str, VariantRoute], held: Sequence[str]
) -> JsonObject:
    told: JsonObject = {
        "kind": "replica",
        "variant": seen.deployment,
        "replica": seen.replica,
        "state": seen.state,
        "pid": seen.pid,
        "device": "gpu" if seen.num_gpus or seen.gpus else "cpu",
    }
    if seen.num_gpus:
        told["num_gpus"] = seen.num_gpus
    if seen.gpus:
        told["gpus"] = list(seen.gpus)
    if seen.deployment == GATEWAY:
        return {**told, "kind": "door", "variant": "", "holds": list(held)}
    if (route := variants.get(seen.deployment)) is not None:
        told["variant"] = route.name
        told["num_shards"] = len(route.facts.shards)
    return told


def _shard(seen: ActorSeen, named: re.Match[str], shards: Sequence[ShardFacts]) -> JsonObject:
    rank = int(named["rank"])
    told: JsonObject = {
        "kind": "shard",
        "variant": named["variant"],
        "replica": named["replica"],
        "state": "RUNNING",
        "pid": seen.pid,
        "device": "cpu",
        "rank": rank,
    }
    if seen.gpus:
        told["gpus"] = list(seen.gpus)
    facts = next((each for each in shards if each.rank == rank), None)
    return told if facts is None else {**told, **asdict(facts)}


def _order(told: JsonObject) -> tuple[str, str, str, str]:
    # Doors, then each variant's replicas, each before its shards.
    kind = "" if told["kind"] == "door" else "variant"
    rank = f"{told['rank']:06}" if "rank" in told else ""
    return kind, str(told["variant"]), str(told["replica"]), rank
