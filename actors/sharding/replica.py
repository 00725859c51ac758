"""A sharded variant's replica: the layout before it starts, the group when it does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.engines.engine import Engine
from cluster.engines.sharded.layers import layered_model, stage_artefacts
from cluster.engines.sharded.options import dtype_option
from cluster.errors import ConfigError
from cluster.placement.partition import LayeredModel, Layout, lay_out

if TYPE_CHECKING:
    from actors.model_replica import ReplicaSetup
    from actors.variant_facts import Origin
    from cluster.config.variant import ProcessLimits, VariantConfig

logger = logging.getLogger("squadron.shard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """A placement that was checked against its model."""

    placement: PlacementConfig
    layout: Layout
    model: LayeredModel
    dtype: str


def sharding_of(name: str, variant: VariantConfig, origin: Origin) -> Sharding | None:
    """None for a variant whose replica is one process.

    Raises: ConfigError naming variant, layer and device.
    """
    if not variant.placement.is_sharded:
        return None
    try:
        _check_card(origin.card, variant)
        dtype = dtype_option(dict(variant.options))
        model = layered_model(origin.card, origin.folder, dtype)
        layout = lay_out(variant.placement, model)
    except ConfigError as error:
        raise ConfigError(f"variants.{name}: {error.message}", **error.details) from None
    return Sharding(placement=variant.placement, layout=layout, model=model, dtype=dtype)


def sharded_engine(replica_id: str) -> Callable[[ReplicaSetup], Engine]:
    """What makes the replica's engine: a group of shards that takes this process with it when one
    of them is lost. Serve then starts another replica in the same shape, and the doors send there
    what was not answered."""

    def make(setup: ReplicaSetup) -> Engine:
        from actors.node_folder import node_folder
        from actors.sharding.group_start import GroupSetup
        from actors.sharding.ray_starter import RayStarter
        from actors.sharding.shard_group import ShardGroup

        sharding = setup.sharding
        assert sharding is not None
        layout, placement = sharding.layout, sharding.placement
        group = ShardGroup(
            GroupSetup(
                title=f"squadron:{setup.variant}:{replica_id}",
                card=setup.card,
                folder=Path(setup.folder).resolve(),
                placement=placement,
                layout=layout,
                threads=setup.threads,
                dtype=sharding.dtype,
                artefacts=stage_artefacts(setup.card, setup.folder, layout),
                vocabulary_size=sharding.model.vocabulary_size,
                max_tokens=sharding.model.max_tokens,
                limits=setup.limits,
                cores=node_folder() / "cores",
            ),
            RayStarter(layout, placement, threads=setup.threads),
            on_lost=_end_process,
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


def _end_process(reason: str) -> None:
    logger.error("the replica ends with its shards: %s", reason)
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(1)


def _check_card(card: ModelCard, variant: VariantConfig) -> None:
    if card.format == "onnx" and variant.options:
        name = next(iter(variant.options))
        raise ConfigError(
            f"a cut ONNX graph takes no options, got {name!r}", key=f"options.{name}", value=name
        )
