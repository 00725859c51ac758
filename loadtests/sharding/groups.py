"""Shard groups of child processes, for measuring without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.sharding.group_start import GroupSetup
from actors.sharding.shard_group import ShardGroup
from actors.sharding.starters import ProcessStarter
from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.config.variant import ProcessLimits
from cluster.engines.sharded.layers import layered_model, stage_artefacts
from cluster.placement.partition import Layout, lay_out


@contextmanager
def group(card: ModelCard, folder: Path, **placement: Any) -> Iterator[tuple[ShardGroup, Layout]]:
    """`placement`: the section of that name; `on_lost`, `watch`, `limits` and `tracing` go to the
    group. `starter`: a kind of `ProcessStarter`."""
    starter: type[ProcessStarter] = placement.pop("starter", ProcessStarter)
    on_lost = placement.pop("on_lost", lambda reason: None)
    limits = placement.pop("limits", ProcessLimits())
    tracing = placement.pop("tracing", None)
    watch = placement.pop("watch", None)
    config = PlacementConfig.model_validate(placement)
    model = layered_model(card, folder)
    layout = lay_out(config, model)
    setup = GroupSetup(
        title=f"squadron:{card.name}:loadtest",
        card=card,
        folder=folder,
        placement=config,
        layout=layout,
        artefacts=stage_artefacts(card, folder, layout),
        vocabulary_size=model.vocabulary_size,
        max_tokens=model.max_tokens,
        limits=limits,
        tracing=tracing,
    )
    made = ShardGroup(setup, starter(len(layout.shards)), on_lost=on_lost, watch=watch)
    try:
        made.load()
        yield made, layout
    finally:
        made.close()
