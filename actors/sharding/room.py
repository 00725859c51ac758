"""The cluster's devices while variants are placed on them one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.sharding.topology.observe import observed
from cluster.config.variant import VariantConfig
from cluster.placement.automatic import is_open
from cluster.placement.reservation import reserve
from cluster.placement.room import Need, left_over, needs_of, of_kind
from cluster.topology import Topology

if TYPE_CHECKING:
    from actors.sharding.replica import Placed, Sharding


class Room:
    """What all variants of a configuration leave each other. What of it their replicas of before
    hold now is theirs again: an old replica goes before a new one comes.

    `is_free_only`: for a model that comes to a cluster at work, without the GPUs that are reserved.
    """

    def __init__(self, topology: Topology | None = None, *, is_free_only: bool = False) -> None:
        self._topology = topology
        self.is_free_only = is_free_only
        self._needs: list[Need] = []

    def left(self, device: str) -> Topology:
        """For a variant that computes on a `device`."""
        if self._topology is None:
            found = observed(measure=False, is_free_only=self.is_free_only)
            self._topology = found.to_topology()
        return of_kind(left_over(self._topology, self._needs), device.partition(":")[0])

    def whole(self, device: str) -> Topology:
        """All that there is, whoever holds it."""
        return of_kind(observed(measure=False).to_topology(), device.partition(":")[0])

    def take(self, variant: VariantConfig, found: Placed) -> None:
        """The devices of all its replicas."""
        scaling = variant.autoscaling
        replicas = variant.replicas if scaling is None else scaling.first_replicas
        needs = replica_needs(variant, found.sharding, planned_gpus=found.num_gpus)
        self._needs += needs * replicas


def replica_needs(
    variant: VariantConfig, sharding: Sharding | None, *, planned_gpus: int
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
