"""The cluster's devices while variants are placed on them one after another."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.language.placement import STRATEGIES
from actors.sharding.topology.nodes import could_have, node_rooms
from actors.sharding.topology.observe import observed
from cluster.config.placement import BundleStrategy
from cluster.config.variant import VariantConfig
from cluster.errors import ConfigError
from cluster.placement.automatic import is_open
from cluster.placement.capacity import Ask, NodeRoom, asks_of, check_gpus_hold, check_there_is
from cluster.placement.reservation import reserve
from cluster.placement.room import Need, left_over, needs_of, of_kind, shares_left
from cluster.topology import Topology

if TYPE_CHECKING:
    from actors.sharding.replica import Placed, Sharding

logger = logging.getLogger("squadron.placement")


class Room:
    """What all variants of a configuration leave each other. What of it their replicas of before
    hold now is theirs again: an old replica goes before a new one comes.

    `is_free_only`: for a model that comes to a cluster at work, without the GPUs that are reserved.
    `nodes`: what the cluster has; Ray is asked without them.
    """

    def __init__(
        self,
        topology: Topology | None = None,
        *,
        is_free_only: bool = False,
        nodes: Sequence[NodeRoom] | None = None,
    ) -> None:
        self._topology = topology
        self._nodes = nodes
        self.is_free_only = is_free_only
        self._needs: list[Need] = []

    def left(self, device: str) -> Topology:
        """For a variant that computes on a `device`: whole devices, and what others leave of a GPU
        where there is no whole one."""
        if self._topology is None:
            seen = observed(measure=False, is_free_only=self.is_free_only)
            self._topology = seen.to_topology()
        kind = device.partition(":")[0]
        found = of_kind(left_over(self._topology, self._needs), kind)
        if any(site.device.kind == "cuda" for site in found.sites()):
            return found
        shared = of_kind(shares_left(self._topology, self._needs), kind)
        return replace(found, nodes=(*shared.nodes, *found.nodes))

    def whole(self, device: str) -> Topology:
        """All that there is, whoever holds it."""
        return of_kind(observed(measure=False).to_topology(), device.partition(":")[0])

    def check(self, name: str, variant: VariantConfig, found: Placed) -> None:
        """Raises: ConfigError for a replica that all of the cluster cannot hold: Ray would wait for
        ever. Where nodes come later (Kubernetes, an autoscaler), it is only logged."""
        nodes = node_rooms() if self._nodes is None else self._nodes
        if not nodes:
            return
        asks, strategy, key = asks_for(variant, found)
        whole_key = f"variants.{name}.{key}"
        try:
            check_there_is(asks, strategy, nodes, key=whole_key)
            if found.sharding is not None and any(ask.num_gpus for ask in asks):
                cap = found.sharding.placement.max_memory_mb
                check_gpus_hold(found.sharding.layout, cap, self._all(), key=whole_key)
        except ConfigError as error:
            told = f"variants.{name}: {key}: {error.message}"
            if self._nodes is None and could_have(asks):
                logger.warning("%s; it waits for nodes to come", told)
                return
            raise ConfigError(told, **error.details) from None

    def _all(self) -> Topology:
        if self._nodes is not None and self._topology is not None:
            return self._topology
        return observed(measure=False).to_topology()

    def take(self, variant: VariantConfig, found: Placed) -> None:
        """The devices of all its replicas."""
        scaling = variant.autoscaling
        replicas = variant.replicas if scaling is None else scaling.first_replicas
        needs = replica_needs(variant, found.sharding, planned_gpus=found.num_gpus)
        self._needs += needs * replicas


def asks_for(variant: VariantConfig, found: Placed) -> tuple[tuple[Ask, ...], BundleStrategy, str]:
    """What Ray reserves for one replica, how it lies, and the key that asks for it."""
    resources, llm = variant.resources, variant.llm
    if found.sharding is not None:
        layout, section = found.sharding.layout, found.sharding.placement
        reserved = reserve(layout, section)
        key = "shard_map" if section.shard_map else "devices" if section.devices else "shards"
        cap = section.max_memory_mb
        asks = asks_of(reserved, layout, resources.num_cpus, max_memory_mb=cap)
        return asks, reserved.strategy, f"placement.{key}"
    if llm is not None and llm.num_devices > 1:
        degrees = f"tensor_parallel {llm.tensor_parallel} x pipeline_parallel"
        told = f"part {{}} of {degrees} {llm.pipeline_parallel}"
        asks = tuple(Ask(what=told.format(n), num_gpus=1) for n in range(llm.num_devices))
        return asks, STRATEGIES[llm.placement], "llm"
    gpus = found.num_gpus if resources.num_gpus is None else resources.num_gpus
    ask = Ask(what="a replica", num_cpus=resources.num_cpus, num_gpus=gpus)
    return (ask,), "PACK", "resources"


def replica_needs(
    variant: VariantConfig, sharding: Sharding | None, *, planned_gpus: float
) -> tuple[Need, ...]:
    """The devices that Ray reserves for one replica, and the cores that were planned for it."""
    if sharding is not None:
        reserved = reserve(sharding.layout, sharding.placement)
        return needs_of(reserved, with_cores=is_open(variant.placement))
    num_gpus = variant.resources.num_gpus
    if num_gpus is None:
        if variant.llm is not None and variant.device != "cpu":
            return (Need(num_devices=1),) * variant.llm.num_devices
        num_gpus = planned_gpus
    return (Need(num_devices=num_gpus),) if num_gpus else ()
