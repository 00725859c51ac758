"""Shard groups without Ray: every shard a child process of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.sharding.shard_group import ShardGroup
from cluster.config.model_card import ModelCard
from cluster.engines.engine import EngineSetup
from cluster.engines.table import default_engine, make_engine
from loadtests.sharding import groups
from tests.e2e.sharding.preloaded import PreloadedStarter


@contextmanager
def group(card: ModelCard, folder: Path, **placement: Any) -> Iterator[ShardGroup]:
    """See `loadtests.sharding.groups`; with processes that start at once."""
    with groups.group(card, folder, **{"starter": PreloadedStarter, **placement}) as (made, _):
        yield made


def single(card: ModelCard, folder: Path) -> Any:
    """The plain engine, loaded."""
    engine = make_engine(default_engine(card.format), EngineSetup(card=card, folder=folder))
    engine.load()
    return engine
