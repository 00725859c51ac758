"""Whether configured placements, experiments and ensembles fit their models, as far as these are on
this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cluster.cli.held.graphs import (
    KnownModels,
    Unknown,
    check_experiments,
    known_models,
    plan_ensembles,
)
from cluster.config.model_card import ModelCard
from cluster.config.section import Mistake
from cluster.config.squadron import SquadronConfig
from cluster.config.storage.location import parse_location
from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.engines.artefact import inside
from cluster.engines.fit import check_fit
from cluster.engines.sharded.cut import cut
from cluster.engines.sharded.generate import generating
from cluster.engines.table import default_engine, is_installed
from cluster.errors import ConfigError
from cluster.placement.automatic import is_open

STORE_VARIABLE = "SQUADRON_MODEL_STORE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """`fitting`: variants whose placement was held against their model; `unseen`: variant -> why
    it was not."""

    mistakes: tuple[Mistake, ...]
    fitting: tuple[str, ...]
    unseen: dict[str, str]


def hold_against_models(config: SquadronConfig) -> Fitting:
    """Every variant that is cut into shards, or that generates, is asked what a server would ask
    before it starts a replica; arms and ensembles are held against what their models take."""
    mistakes: list[Mistake] = []
    fitting: list[str] = []
    unseen: dict[str, str] = {}
    cards: dict[str, ModelCard] = {}
    with _told():
        for name, variant in config.variants.items():
            try:
                _check_class(variant)
            except ConfigError as error:
                mistakes.append(_mistake(name, error))
            is_held = variant.placement.is_sharded or "task" in variant.options
            try:
                found = _model(config, variant)
                if isinstance(found, str):
                    if is_held:
                        unseen[name] = found
                    continue
                cards[name] = generating(found[0], variant.options)
                if not is_held:
                    continue
                _check(variant, *found)
            except ConfigError as error:
                # Of the others a server says what is wrong, and whether they may be left out.
                if is_held:
                    mistakes.append(_mistake(name, error))
                continue
            fitting.append(name)
    mistakes.extend(_of_graphs(known_models(config, cards)))
    return Fitting(mistakes=tuple(mistakes), fitting=tuple(fitting), unseen=unseen)


def _model(config: SquadronConfig, variant: VariantConfig) -> tuple[ModelCard, Path] | str:
    """The card and its folder, or why neither can be looked at here. Nothing is fetched."""
    if variant.card is not None:
        card, folder = variant.card, Path.cwd()
    else:
        root = parse_location(os.environ.get(STORE_VARIABLE) or config.store.path)
        if not isinstance(root, Path):
            return f"its store is at {root}"
        name, _, version = (variant.source or "").partition("/")
        store = ModelStore(root)
        if not store.versions(name):
            return f"no model {name!r} in {root.absolute()}"
        card, folder = store.card(name, version), store.folder(name, version)
    engine = variant.engine or default_engine(card.format)
    if not is_installed(engine):
        return f"{engine} is not installed here"
    return card, folder


def _of_graphs(known: KnownModels) -> Iterator[Mistake]:
    found = [
        *check_experiments(known).values(),
        *(each for _, each in plan_ensembles(known) if isinstance(each, ConfigError)),
    ]
    for error in found:
        if not isinstance(error, Unknown):
            key = str(error.details.get("key", "ensembles"))
            yield Mistake(
                key=key, text=error.message.removeprefix(f"{key}: "), value="", allowed=""
            )


def _check_class(variant: VariantConfig) -> None:
    """A card in the file itself belongs to the folder where it is served."""
    place = variant.card.python_class.partition(":")[0] if variant.card is not None else ""
    if place.endswith(".py"):
        try:
            inside(Path.cwd(), place)
        except ConfigError as error:
            raise ConfigError(error.message, key="card.python_class", value=place) from None


def _check(variant: VariantConfig, card: ModelCard, folder: Path) -> None:
    check_fit(card, variant.engine, variant.device)
    card = generating(card, variant.options)
    placement = variant.placement
    # What `auto` becomes is the cluster's to say: `squadron plan` asks it.
    if placement.is_sharded and not is_open(placement):
        cut(card, folder, placement, engine=variant.engine, options=variant.options)


def _mistake(name: str, error: ConfigError) -> Mistake:
    """The message names the value, and mostly what is allowed."""
    key = str(error.details.get("key", "")) or "placement"
    allowed = str(error.details.get("allowed", ""))
    return Mistake(
        key=f"variants.{name}.{key}",
        text=error.message.removeprefix("shard_map: "),
        value="",
        allowed="" if "allowed: " in error.message else allowed,
    )


@contextmanager
def _told() -> Iterator[None]:
    """Libraries that know models take seconds to come."""
    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status("holding placements against their models"):
        yield
