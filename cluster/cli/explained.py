"""What a configuration decides before anything runs, and why: `squadron explain --config`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.cli.held.graphs import KnownModels, check_experiments, known_models, plan_ensembles
from cluster.config.experiment import ExperimentConfig
from cluster.config.model_card import ModelCard
from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.config.serve_file import read_serve_file
from cluster.config.squadron import SquadronConfig
from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.engines.fit import check_fit
from cluster.errors import ConfigError
from cluster.optimization.remote.mirror import open_store
from cluster.routing.colocation import colocate


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One decision: of what, and the sentence."""

    kind: str
    subject: str
    reason: str


def explain_file(file: Path, name: str = "") -> tuple[Explained, ...]:
    """`name`: of one model only. Raises: ConfigError for a file that is not right, or has no such
    model."""
    _, config = read_serve_file(file)
    if name and name not in config.model_names():
        known = ", ".join(config.model_names())
        raise ConfigError(f"{file} has no model '{name}'; allowed: {known}")
    return tuple(each for each in _explained(config) if name in ("", each.subject))


def _explained(config: SquadronConfig) -> Iterator[Explained]:
    store = open_store(
        os.environ.get("SQUADRON_MODEL_STORE") or config.store.path, config.store.cache
    )
    is_controlled = config.server.repository_control == "explicit"
    cards: dict[str, ModelCard] = {}
    for name, variant in config.variants.items():
        try:
            card, folder = _card(variant, store)
            engine = check_fit(card, variant.engine, variant.device)
        except ConfigError as error:
            yield Explained(
                kind="engine", subject=name, reason=f"cannot be served: {error.message}"
            )
            continue
        cards[name] = card
        which = "as configured" if variant.engine is not None else f"for {card.format} models"
        yield Explained(
            kind="engine", subject=name, reason=f"{engine} on {variant.device}, {which}"
        )
        artefact = folder / card.artefact
        num_bytes = artefact.stat().st_size if card.artefact and artefact.is_file() else 0
        if is_controlled:
            # A model that a door holds could not be unloaded without its door.
            variant = variant.model_copy(update={"colocate": "never"})
        found = colocate(variant, engine=engine, artefact_bytes=num_bytes)
        where = "in the doors" if found.is_colocated else "in processes of its own"
        yield Explained(kind="place", subject=name, reason=f"{where}: {found.reason}")
        if variant.autoscaling is not None:
            reason = _scaling(variant.autoscaling)
            yield Explained(kind="autoscaling", subject=name, reason=reason)
    known = known_models(config, cards)
    misfits = check_experiments(known)
    for name, experiment in config.experiments.items():
        yield Explained(kind="traffic", subject=name, reason=_traffic(experiment))
        if name in misfits:
            reason = f"cannot be served: {misfits[name].message}"
            yield Explained(kind="experiment", subject=name, reason=reason)
        for reason in _moves(experiment):
            yield Explained(kind="experiment", subject=name, reason=reason)
    yield from _ensembles(known)


def _card(variant: VariantConfig, store: ModelStore) -> tuple[ModelCard, Path]:
    if variant.card is not None:
        return variant.card, Path.cwd()
    source, _, version = (variant.source or "").partition("/")
    card = store.card(source, version)
    return card, store.folder(source, card.version)


def _scaling(config: AutoscalingConfig) -> str:
    season = f", its season of {config.season_s:g} s" if config.season_s else ""
    return (
        f"begins with {config.first_replicas} replicas, then {config.min_replicas} to "
        f"{config.max_replicas}: as many as keep {config.slo_share:.1%} of the answers below "
        f"{config.slo_ms:g} ms at the rate of the last {config.look_back_period_s:g} s, its "
        f"rise{season}; more at once when what waits would take half of that"
    )


def _traffic(config: ExperimentConfig) -> str:
    weights = config.first_weights()
    total = sum(weights.values())
    shares = ", ".join(f"{arm} {weight / total:.1%}" for arm, weight in weights.items())
    return f"begins with {shares}; {config.control} is the control"


def _moves(config: ExperimentConfig) -> Iterator[str]:
    if config.canary is not None:
        canary = config.canary
        steps = " -> ".join(f"{canary.watched_share(i):g}" for i in range(len(canary.steps)))
        end = config.promoted_weights()[next(n for n in config.split if n != config.control)]
        yield (
            f"a canary: {steps} %, each for {canary.step_s:g} s with {canary.step_requests} "
            f"requests of its own, then {end:g} %"
        )
    if config.bandit is not None:
        bandit = config.bandit
        yield (
            f"a bandit: new weights every {bandit.update_s:g} s by {bandit.reward}, none below "
            f"{bandit.floor:.0%}"
        )
    if config.guardrails is not None or config.canary is not None:
        rails = config.rails
        looked = ", ".join(
            f"{name} {tolerated:.1%}"
            for name in ("latency", "errors", "slow", "quality")
            if (tolerated := getattr(rails, name)) is not None
        )
        then = "goes back to nothing" if rails.roll_back else "is told of"
        yield f"an arm that is worse than the control by more than {looked} {then}"
    if not (config.canary or config.bandit or config.guardrails):
        yield "nothing moves the weights but who sets them: the arms are measured and judged"


def _ensembles(known: KnownModels) -> Iterator[Explained]:
    for name, found in plan_ensembles(known):
        if isinstance(found, ConfigError):
            yield Explained(kind="ensemble", subject=name, reason=found.message)
            continue
        order = "; ".join(
            f"{number}. {', '.join(sorted(step.needs))} -> {', '.join(sorted(step.gives))}"
            for number, step in enumerate(found.steps, start=1)
        )
        yield Explained(kind="ensemble", subject=name, reason=f"runs in this order: {order}")
