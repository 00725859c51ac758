"""A stored model cut as its placement says: asked by servers and by `squadron check`, so that both
refuse the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.engines.options import Option
from cluster.engines.sharded.layers import layered_model
from cluster.engines.sharded.make import refuse_format
from cluster.engines.sharded.options import dtype_option
from cluster.errors import ConfigError
from cluster.models import EngineName
from cluster.placement.partition import LayeredModel, Layout, lay_out
from cluster.placement.transport import choose_talk

SHARD_ENGINES: dict[str, EngineName] = {
    "huggingface": "torch",
    "onnx": "onnxruntime",
    "torch_export": "torch",
}
"""Format -> the engine that its shards are run with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """`dtype`: that is computed in."""

    model: LayeredModel
    layout: Layout
    dtype: str


def cut(
    card: ModelCard,
    folder: Path,
    placement: PlacementConfig,
    *,
    engine: EngineName | None = None,
    options: Mapping[str, Option] | None = None,
) -> Cut:
    """Raises: ConfigError for a format, an engine or an option that excludes shards, and as
    `lay_out` and `choose_talk`, naming layer and device."""
    options = dict(options or {})
    _check_engine(card, engine)
    if card.format in ("onnx", "torch_export") and options:
        name = next(iter(options))
        raise ConfigError(
            f"a cut graph takes no options, got {name!r}", key=f"options.{name}", value=name
        )
    dtype = dtype_option(options)
    model = layered_model(card, folder, dtype)
    layout = lay_out(placement, model)
    # Which shards share a node is not known yet; what the devices exclude is.
    choose_talk(layout, placement.transport, is_here=lambda _: True, is_same_node=lambda *_: True)
    return Cut(model=model, layout=layout, dtype=dtype)


def _check_engine(card: ModelCard, engine: EngineName | None) -> None:
    shards = SHARD_ENGINES.get(card.format)
    if shards is None:
        raise refuse_format(card.format)
    if engine is not None and engine != shards:
        raise ConfigError(
            f"engine {engine!r} runs no shards: those of a model of format {card.format} are run "
            f"with {shards}; allowed: {shards}, or none",
            key="engine",
            value=engine,
            allowed=shards,
        )
