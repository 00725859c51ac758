"""Whether a file's experiments and ensembles fit their models, as far as these are known here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cluster.config.model_card import ModelCard
from cluster.config.squadron import SquadronConfig
from cluster.errors import ConfigError
from cluster.routing.arms import check_arms
from cluster.routing.depends import circle_of
from cluster.routing.ensembles.plan import EnsemblePlan, plan_ensemble
from cluster.tensors import Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModels:
    """`signatures`: of the variants whose cards are here; `streams`: those of them that stream."""

    config: SquadronConfig
    signatures: Mapping[str, Signature]
    streams: frozenset[str]


def known_models(config: SquadronConfig, cards: Mapping[str, ModelCard]) -> KnownModels:
    """Without those whose sequences or ragged inputs change what a model takes: a server says."""
    signatures = {}
    for name, card in cards.items():
        variant = config.variants[name]
        if variant.sequences is None and variant.batching.ragged is None:
            signatures[name] = (
                card.public_signature() if variant.processed else card.raw_signature()
            )
    streams = frozenset(name for name in signatures if cards[name].decoupled)
    return KnownModels(config=config, signatures=signatures, streams=streams)


def check_experiments(known: KnownModels) -> dict[str, ConfigError]:
    """Those with arms that cannot stand for one another."""
    found: dict[str, ConfigError] = {}
    for name, section in known.config.experiments.items():
        try:
            check_arms(name, section, known.signatures, known.streams)
        except ConfigError as error:
            found[name] = error
    return found


def plan_ensembles(known: KnownModels) -> Iterator[tuple[str, EnsemblePlan | ConfigError]]:
    """Each with its plan, or why it cannot work or cannot be told here."""
    config, signatures = known.config, dict(known.signatures)
    waiting = dict(config.ensembles)
    while waiting:
        ready = [
            name
            for name, ensemble in waiting.items()
            if not any(model in waiting for model in ensemble.models)
        ]
        if not ready:
            error = circle_of(waiting)
            yield from ((name, error) for name in waiting)
            return
        for name in ready:
            ensemble = waiting.pop(name)
            for experiment, each in config.experiments.items():
                if each.control in signatures:
                    signatures.setdefault(experiment, signatures[each.control])
            missing = [model for model in ensemble.models if model not in signatures]
            if missing:
                asks = ", ".join(ensemble.models)
                yield name, Unknown(f"asks {asks}; nothing is known of {missing[0]} here")
                continue
            # Their names are of no account for the order.
            labels = dict.fromkeys(ensemble.models, (b"",))
            try:
                plan = plan_ensemble(name, ensemble, signatures, labels, known.streams)
            except ConfigError as error:
                yield name, error
                continue
            signatures[name] = plan.signature
            yield name, plan


class Unknown(ConfigError):
    """Nothing wrong was found: a model of it is not here."""
