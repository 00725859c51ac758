"""What is reserved for a replica that is cut: which shards share a bundle, on what kind of node."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from cluster.config.placement import BundleStrategy, PlacementConfig
from cluster.errors import ConfigError
from cluster.placement.partition import Layout, Shard

SHARE_DIGITS = 4
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What one node gives, all of it or nothing. `has_replica`: the replica's own process too."""

    ranks: tuple[int, ...]
    num_cpus: float = 0.0
    num_gpus: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    has_replica: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The replica's own process is in the first bundle. `gpu_shares`: by rank, 0 without one;
    `strategy`: how the bundles lie to each other."""

    bundles: tuple[Bundle, ...]
    strategy: BundleStrategy
    gpu_shares: tuple[float, ...]

    def bundle_of(self, rank: int) -> int:
        return next(n for n, bundle in enumerate(self.bundles) if rank in bundle.ranks)


def reserve(layout: Layout, placement: PlacementConfig) -> Reservation:
    """Shards of one bundle are on one node: slices of a stage, what names one node, what shares a
    GPU. Stages that name different nodes are on different ones unless `bundles` says otherwise.

    Raises: ConfigError for shards that must share a node and ask for different labels.
    """
    sets = _together(layout.shards)
    is_named = bool(layout.shards[0].node)
    gpus = [gpu_of(shard) for shard in layout.shards]
    shares = tuple(0.0 if gpu is None else _share(gpus.count(gpu)) for gpu in gpus)
    bundles = [
        Bundle(
            ranks=ranks,
            num_cpus=round(placement.num_cpus * len(ranks), SHARE_DIGITS),
            num_gpus=len({gpus[rank] for rank in ranks} - {None}),
            labels=_labels([layout.shards[rank] for rank in ranks]),
            has_replica=is_named and 0 in ranks,
        )
        for ranks in sets
    ]
    if not is_named:
        bundles.insert(0, Bundle(ranks=(), has_replica=True))
    return Reservation(
        bundles=tuple(bundles), strategy=_strategy(layout, placement, sets), gpu_shares=shares
    )


def gpu_of(shard: Shard) -> Hashable | None:
    """What tells one GPU of a layout from another; None for a CPU."""
    if not shard.device.startswith("cuda"):
        return None
    return shard.node, tuple(sorted(shard.labels.items())), shard.device


def _together(shards: Sequence[Shard]) -> list[tuple[int, ...]]:
    """Ranks by bundle, in the order of their first ones."""
    first = {shard.rank: shard.rank for shard in shards}
    for one, other in combinations(shards, 2):
        if _must_meet(one, other):
            old, new = sorted((first[one.rank], first[other.rank]), reverse=True)
            first = {rank: new if found == old else found for rank, found in first.items()}
    return [
        tuple(rank for rank, found in first.items() if found == each)
        for each in sorted(set(first.values()))
    ]


def _must_meet(one: Shard, other: Shard) -> bool:
    shares_gpu = gpu_of(one) is not None and gpu_of(one) == gpu_of(other)
    return one.stage == other.stage or shares_gpu or (bool(one.node) and one.node == other.node)


def _labels(shards: Sequence[Shard]) -> dict[str, str]:
    found: dict[str, str] = {}
    for shard in shards:
        for key, value in shard.labels.items():
            if found.setdefault(key, value) != value:
                raise ConfigError(
                    f"shard {shard.rank} asks for a node with the label {key}: {value}, the shards "
                    f"that share its node for {found[key]}",
                    key="placement.shard_map",
                    value=f"{key}: {value}",
                    allowed="equal labels for what shares a node",
                )
    return found


def _strategy(
    layout: Layout, placement: PlacementConfig, sets: Sequence[tuple[int, ...]]
) -> BundleStrategy:
    if placement.bundles != "auto":
        return placement.bundles
    if layout.shards[0].node and len(sets) > 1:
        return "STRICT_SPREAD"
    return "STRICT_PACK" if layout.num_stages == 1 else "PACK"


def _share(count: int) -> float:
    """Rounded down: so many shares must fit."""
    whole = int(10**SHARE_DIGITS)
    return whole // count / whole
