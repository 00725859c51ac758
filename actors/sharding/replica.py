"""A sharded variant's replica: the layout before it starts, the group when it does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actors.measures.recovery import tell_loss
from actors.repository.names import NAMESPACE, controller_name, main_app
from cluster.config.placement import PlacementConfig
from cluster.engines.engine import Engine
from cluster.engines.sharded.cut import cut
from cluster.engines.sharded.layers import stage_artefacts
from cluster.errors import ConfigError
from cluster.models import ShardFacts
from cluster.placement.automatic import Chosen, choose, is_open
from cluster.placement.partition import LayeredModel, Layout
from cluster.placement.search.facts import Demand
from cluster.simulation.cluster.fast import FastSimulator
from cluster.simulation.cluster.trace import draw_trace
from cluster.topology import Topology

if TYPE_CHECKING:
    from actors.model_replica import ReplicaSetup
    from actors.sharding.room import Room
    from actors.variant_facts import Origin
    from cluster.config.variant import ProcessLimits, VariantConfig

logger = logging.getLogger("squadron.shard")

CALLS = 10_000
"""Of the simulated trace that shapes are compared on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """A placement that was checked against its model, and why it is this one."""

    placement: PlacementConfig
    layout: Layout
    model: LayeredModel
    dtype: str

    def shards(self) -> tuple[ShardFacts, ...]:
        """What callers are told of them."""
        return tuple(
            ShardFacts(
                rank=shard.rank,
                stage=shard.stage,
                device=shard.device,
                first_layer=shard.layers.start,
                last_layer=shard.layers.stop - 1,
                weight_bytes=shard.weight_bytes,
                tensor_rank=shard.tensor_rank,
                tensor_degree=shard.tensor_degree,
            )
            for shard in self.layout.shards
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """`sharding`: None for a replica of one process; `num_gpus`: what the planner gave that one."""

    sharding: Sharding | None = None
    reason: str = ""
    num_gpus: float = 0.0


def placed(name: str, variant: VariantConfig, origin: Origin, room: Room) -> Placed:
    """How a replica is cut. `room`: what is there for a placement that is left open.

    Raises: ConfigError naming variant, layer and device.
    """
    placement = variant.placement
    if not placement.is_sharded:
        return Placed()
    try:
        reason = ""
        if is_open(placement):
            chosen = _planned(name, variant, origin, room)
            placement, reason = chosen.config, chosen.reason
            logger.info("variants.%s: %s", name, reason)
            if not placement.is_sharded:
                return Placed(reason=reason, num_gpus=chosen.num_gpus)
        made = cut(
            origin.card, origin.folder, placement, engine=variant.engine, options=variant.options
        )
    except ConfigError as error:
        raise ConfigError(f"variants.{name}: {error.message}", **error.details) from None
    if not reason:
        reason = made.layout.reason
    elif placement.strategy == "auto":
        reason = f"{reason}; {made.layout.reason}"
    sharding = Sharding(placement=placement, layout=made.layout, model=made.model, dtype=made.dtype)
    return Placed(sharding=sharding, reason=reason)


def _planned(name: str, variant: VariantConfig, origin: Origin, room: Room) -> Chosen:
    """What the planner makes of `auto` on the devices that are left now."""
    from cluster.optimization.facts.variant import as_served, facts_of_artefact

    demand = as_served(variant.placement.demand, variant, origin.card)
    facts = facts_of_artefact(name, origin.card, origin.folder, demand)
    # Where replicas come and go, each is planned for itself.
    replicas = 1 if variant.autoscaling else max(1, variant.replicas)

    def chosen(topology: Topology) -> Chosen:
        def evaluate_for(demands: tuple[Demand, ...]) -> FastSimulator:
            seconds = CALLS / max(demand.rate_per_s, 1e-6)
            trace = draw_trace(demands, seconds=seconds, random=np.random.default_rng(0))
            return FastSimulator(trace, request_s=topology.request_s)

        section = variant.placement.model_copy(update={"demand": demand})
        return choose(name, section, facts, topology, evaluate_for, replicas=replicas)

    try:
        return chosen(room.left(variant.device))
    except ConfigError:
        if not room.is_free_only:
            raise
    # What holds the devices now may be the version that this one replaces.
    found = chosen(room.whole(variant.device))
    return replace(found, reason=f"{found.reason}; waits for GPUs that others hold")


def sharded_engine(app: str, replica_id: str) -> Callable[[ReplicaSetup], Engine]:
    """What makes the replica's engine: a group of shards that takes this process with it when one
    of them is lost. Serve then starts another replica in the same shape, and the doors send there
    what was not answered. `app`: the replica's application."""

    def make(setup: ReplicaSetup) -> Engine:
        from actors.node_folder import node_folder
        from actors.sharding.group_start import GroupSetup
        from actors.sharding.ray_starter import RayStarter
        from actors.sharding.shard_group import ShardGroup
        from actors.sharding.watch import group_watch

        sharding = setup.sharding
        assert sharding is not None
        layout, placement = sharding.layout, sharding.placement
        title = f"squadron:{setup.variant}:{replica_id}"
        group = ShardGroup(
            GroupSetup(
                title=title,
                card=setup.card,
                folder=Path(setup.folder).resolve(),
                remote=setup.remote,
                placement=placement,
                layout=layout,
                threads=setup.threads,
                dtype=sharding.dtype,
                artefacts=stage_artefacts(setup.card, setup.folder, layout),
                vocabulary_size=sharding.model.vocabulary_size,
                max_tokens=sharding.model.max_tokens,
                limits=setup.limits,
                cores=node_folder() / "cores",
                tracing=setup.tracing,
                logs=setup.logs,
            ),
            RayStarter(layout, placement, threads=setup.threads, title=title),
            on_lost=partial(_end_process, app, setup.variant, replica_id),
            watch=group_watch(setup.variant, layout),
        )
        group.load()
        group.warm_up((1,))
        return group

    return make


def leader_limits(setup: ReplicaSetup) -> ProcessLimits:
    """The replica's own process leaves the cores to its shards, which do the work."""
    if setup.sharding is None:
        return setup.limits
    return setup.limits.model_copy(update={"cpu_affinity": ()})


def _end_process(app: str, variant: str, replica_id: str, reason: str) -> None:
    logger.error("the replica ends with its shards: %s", reason)
    tell_loss(controller_name(main_app(app)), NAMESPACE, variant, replica_id, reason)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(1)
