"""Shard groups without Ray: every shard a child process of the test."""

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
from cluster.engines.engine import EngineSetup
from cluster.engines.sharded.layers import layered_model, stage_artefacts
from cluster.engines.table import default_engine, make_engine
from cluster.placement.partition import lay_out


@contextmanager
def group(card: ModelCard, folder: Path, **placement: Any) -> Iterator[ShardGroup]:
    """`placement`: the section of that name. `on_lost` goes to the group."""
    on_lost = placement.pop("on_lost", lambda reason: None)
    config = PlacementConfig.model_validate(placement)
    model = layered_model(card, folder)
    layout = lay_out(config, model)
    made = ShardGroup(
        GroupSetup(
            title=f"squadron:{card.name}:test",
            card=card,
            folder=folder,
            placement=config,
            layout=layout,
            artefacts=stage_artefacts(card, folder, layout),
            vocabulary_size=model.vocabulary_size,
            max_tokens=model.max_tokens,
        ),
        ProcessStarter(len(layout.shards)),
        on_lost=on_lost,
    )
    try:
        made.load()
        yield made
    finally:
        made.close()


def single(card: ModelCard, folder: Path) -> Any:
    """The plain engine, loaded."""
    engine = make_engine(default_engine(card.format), EngineSetup(card=card, folder=folder))
    engine.load()
    return engine
