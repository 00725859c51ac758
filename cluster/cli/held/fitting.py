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
from cluster.config.language.settings import LanguageConfig
from cluster.config.model_card import ModelCard
from cluster.config.section import Mistake
from cluster.config.squadron import SquadronConfig
from cluster.config.storage.location import StoreUri, parse_location
from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.engines.artefact import inside
from cluster.engines.fit import check_fit
from cluster.engines.language.fit import check_files, check_language, with_draft
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
    before it starts a replica, its `llm` too; arms and ensembles are held against what their
    models take."""
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
            is_placed = variant.placement.is_sharded or "task" in variant.options
            is_held = is_placed or variant.llm is not None
            try:
                found = _model(config, variant)
                if isinstance(found, str):
                    if is_held:
                        unseen[name] = found
                    continue
                card, folder = found
                if variant.llm is not None:
                    _check_language(config, variant.llm, card, folder)
                engine = variant.engine or default_engine(card.format)
                if not is_installed(engine):
                    if is_held:
                        unseen[name] = f"{engine} is not installed here"
                    continue
                cards[name] = generating(card, variant.options)
                if not is_held:
                    continue
                _check(variant, card, folder)
            except ConfigError as error:
                # Of the others a server says what is wrong, and whether they may be left out.
                if is_held:
                    mistakes.append(_mistake(name, error))
                continue
            if is_placed:
                fitting.append(name)
    mistakes.extend(_of_graphs(known_models(config, cards)))
    return Fitting(mistakes=tuple(mistakes), fitting=tuple(fitting), unseen=unseen)


def _model(config: SquadronConfig, variant: VariantConfig) -> tuple[ModelCard, Path] | str:
    """The card and its folder, or why neither can be looked at here. Nothing is fetched."""
    if variant.card is not None:
        card, folder = variant.card, Path.cwd()
    else:
        root = _root(config)
        if not isinstance(root, Path):
            return f"its store is at {root}"
        name, _, version = (variant.source or "").partition("/")
        store = ModelStore(root)
        if not store.versions(name):
            return f"no model {name!r} in {root.absolute()}"
        card, folder = store.card(name, version), store.folder(name, version)
    return card, folder


def _root(config: SquadronConfig) -> Path | StoreUri:
    return parse_location(os.environ.get(STORE_VARIABLE) or config.store.path)


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


def _check_language(
    config: SquadronConfig, llm: LanguageConfig, card: ModelCard, folder: Path
) -> None:
    check_language(llm, card, folder)
    check_files(llm)
    root = _root(config)
    if isinstance(root, Path):
        with_draft(llm, ModelStore(root))


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
