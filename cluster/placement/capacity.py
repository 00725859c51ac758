"""Whether a cluster has what one replica asks for: what it has not, Ray would wait for for ever."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from cluster.config.placement import BundleStrategy
from cluster.errors import ConfigError
from cluster.placement.partition import MIB, Layout, Shard
from cluster.placement.reservation import Reservation, gpu_of
from cluster.topology import Topology
from cluster.units import human_bytes

MAX_TRIES = 20_000
"""Of ways to lay bundles on nodes; what is not settled by then is left to Ray."""
SLACK = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRoom:
    """All that a node has, whoever holds it at the moment. `memory_bytes`: beside its GPUs'."""

    name: str
    num_cpus: float
    num_gpus: float = 0.0
    memory_bytes: float = inf
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What must be on one node. `what`: layers and devices, as they are told to people;
    `memory_bytes`: weights that are on its processors."""

    what: str
    num_cpus: float = 0.0
    num_gpus: float = 0.0
    memory_bytes: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)


def asks_of(
    reserved: Reservation, layout: Layout, num_cpus: float, *, max_memory_mb: float | None = None
) -> tuple[Ask, ...]:
    """Of a group of shards, each of which holds at most `max_memory_mb` of its weights at once.
    `num_cpus`: of the replica's own process."""
    cap = inf if max_memory_mb is None else max_memory_mb * MIB
    held = {s.rank: min(s.weight_bytes, cap) for s in layout.shards if gpu_of(s) is None}
    return tuple(
        Ask(
            what=_run(layout, bundle.ranks) or "the replica's own process",
            num_cpus=bundle.num_cpus + (num_cpus if bundle.has_replica else 0.0),
            num_gpus=bundle.num_gpus,
            memory_bytes=sum(held.get(rank, 0) for rank in bundle.ranks),
            labels=bundle.labels,
        )
        for bundle in reserved.bundles
    )


def check_there_is(
    asks: Sequence[Ask], strategy: BundleStrategy, nodes: Sequence[NodeRoom], *, key: str
) -> None:
    """Raises: ConfigError naming the layers and devices for which no node has enough, alone or
    beside the others."""
    # Memory comes last, and is spoken of only where everything else is there.
    _check(tuple(replace(ask, memory_bytes=0.0) for ask in asks), strategy, nodes, key)
    _check(tuple(asks), strategy, nodes, key)


def _check(
    asks: Sequence[Ask], strategy: BundleStrategy, nodes: Sequence[NodeRoom], key: str
) -> None:
    if strategy == "STRICT_PACK":
        asks = (_joined(asks),)
    for ask in asks:
        if not any(_has(node, ask) for node in nodes):
            raise _refuse(ask, "no node has as much", nodes, key)
    order = sorted(asks, key=lambda ask: (-ask.num_gpus, -ask.num_cpus, -ask.memory_bytes))
    search = _Search(order, nodes, is_spread=strategy == "STRICT_SPREAD")
    if not search.fits(0):
        short = order[search.deepest]
        beside = ", ".join(ask.what for ask in order[: search.deepest])
        apart = ", each on a node of its own" if strategy == "STRICT_SPREAD" else ""
        raise _refuse(short, f"not left beside {beside}{apart}", nodes, key)


def check_gpus_hold(
    layout: Layout, max_memory_mb: float | None, topology: Topology, *, key: str
) -> None:
    """Raises: ConfigError naming the layers whose weights exceed every GPU that they could be on.
    A shard holds at most `max_memory_mb` of its own at once."""
    held: dict[Hashable, list[Shard]] = {}
    for shard in layout.shards:
        gpu = gpu_of(shard)
        if gpu is not None:
            held.setdefault(gpu, []).append(shard)
    for shards in held.values():
        wanted = shards[0].labels.items()
        sizes = [
            site.device.memory_bytes
            for site in topology.sites()
            if site.device.kind == "cuda" and wanted <= dict(site.labels).items()
        ]
        cap = inf if max_memory_mb is None else max_memory_mb * MIB
        needed = sum(min(shard.weight_bytes, cap) for shard in shards)
        if sizes and needed > max(sizes):
            layers = _run(layout, tuple(shard.rank for shard in shards))
            raise ConfigError(
                f"{layers}: {human_bytes(needed)} of weights; the largest GPU there has room for "
                f"{human_bytes(max(sizes))}",
                key=key,
                value=human_bytes(needed),
                allowed=f"<= {human_bytes(max(sizes))} on a GPU: more shards, or max_memory_mb",
            )


class _Search:
    """Bundles on nodes, one after another, each on every node in turn."""

    def __init__(self, asks: Sequence[Ask], nodes: Sequence[NodeRoom], *, is_spread: bool) -> None:
        self.deepest = 0
        self._asks = asks
        self._nodes = nodes
        self._is_spread = is_spread
        self._free = [[node.num_cpus, node.num_gpus, node.memory_bytes, 1.0] for node in nodes]
        self._tries = MAX_TRIES

    def fits(self, index: int) -> bool:
        """Whether the asks from this one on have a place beside those before."""
        if index == len(self._asks):
            return True
        self.deepest = max(self.deepest, index)
        ask = self._asks[index]
        apart = 1.0 if self._is_spread else 0.0
        taken = (ask.num_cpus, ask.num_gpus, ask.memory_bytes, apart)
        for node, free in zip(self._nodes, self._free, strict=True):
            if not _is_labelled(node, ask) or any(
                have < more - SLACK for have, more in zip(free, taken, strict=True)
            ):
                continue
            self._tries -= 1
            if self._tries < 0:
                return True
            free[:] = [have - more for have, more in zip(free, taken, strict=True)]
            if self.fits(index + 1):
                return True
            free[:] = [have + more for have, more in zip(free, taken, strict=True)]
        return False


def _has(node: NodeRoom, ask: Ask) -> bool:
    is_enough = node.num_gpus >= ask.num_gpus - SLACK and node.num_cpus >= ask.num_cpus - SLACK
    return is_enough and node.memory_bytes >= ask.memory_bytes and _is_labelled(node, ask)


def _is_labelled(node: NodeRoom, ask: Ask) -> bool:
    return all(node.labels.get(key) == value for key, value in ask.labels.items())


def _joined(asks: Sequence[Ask]) -> Ask:
    """What shares one node."""
    labels: dict[str, str] = {}
    for ask in asks:
        labels |= ask.labels
    return Ask(
        what="; ".join(ask.what for ask in asks if ask.num_gpus or len(asks) == 1)
        or "; ".join(ask.what for ask in asks),
        num_cpus=sum(ask.num_cpus for ask in asks),
        num_gpus=sum(ask.num_gpus for ask in asks),
        memory_bytes=sum(ask.memory_bytes for ask in asks),
        labels=labels,
    )


def _run(layout: Layout, ranks: tuple[int, ...]) -> str:
    """`layers 0 to 5 on cuda:0 (shard 0)`."""
    told: list[str] = []
    for stage in range(layout.num_stages):
        shards = [shard for shard in layout.stage(stage) if shard.rank in ranks]
        if shards:
            run = shards[0].layers
            layers = (
                f"layer {run.start}" if len(run) == 1 else f"layers {run.start} to {run.stop - 1}"
            )
            devices = ", ".join(dict.fromkeys(map(_site, shards)))
            numbers = ", ".join(str(shard.rank) for shard in shards)
            plural = "" if len(shards) == 1 else "s"
            told.append(f"{layers} on {devices} (shard{plural} {numbers})")
    return " and ".join(told)


def _site(shard: Shard) -> str:
    return f"{shard.node}/{shard.device}" if shard.node else shard.device


def _refuse(ask: Ask, why: str, nodes: Sequence[NodeRoom], key: str) -> ConfigError:
    wants = [
        f"{number:g} {what}{'' if number == 1 else 's'}"
        for number, what in ((ask.num_gpus, "GPU"), (ask.num_cpus, "CPU"))
        if number
    ]
    there = _there(nodes)
    if ask.memory_bytes:
        wants.append(f"{human_bytes(ask.memory_bytes)} of weights")
        told = ", ".join(human_bytes(node.memory_bytes) for node in nodes[:8])
        there += f" with {told}{', …' if len(nodes) > 8 else ''} of memory"
    labelled = "".join(f", labelled {name}: {value}" for name, value in ask.labels.items())
    return ConfigError(
        f"{ask.what}: {' and '.join(wants)} on one node{labelled}: {why}; the cluster has {there}",
        key=key,
        value=" and ".join(wants),
        allowed=f"what fits in {there}{', or max_memory_mb' if ask.memory_bytes else ''}",
    )


def _there(nodes: Sequence[NodeRoom]) -> str:
    """What is told of the cluster: GPUs by node where there are any."""
    with_gpus = [node for node in nodes if node.num_gpus]
    cpus = f"{sum(node.num_cpus for node in nodes):g} CPUs on {len(nodes)} node"
    cpus += "" if len(nodes) == 1 else "s"
    if not with_gpus:
        return f"no GPU, {cpus}"
    gpus = ", ".join(f"{node.name} {node.num_gpus:g}" for node in with_gpus[:8])
    more = f" and {len(with_gpus) - 8} more nodes" if len(with_gpus) > 8 else ""
    count = sum(node.num_gpus for node in with_gpus)
    return f"{count:g} GPU{'' if count == 1 else 's'} ({gpus}{more}), {cpus}"
