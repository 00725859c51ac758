"""One way to serve a model: what the store says of it, and the application that does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.variant_facts import Origin, facts_of, origin_of
from cluster.config.store import ModelStore
from cluster.control.repository import Wanted
from cluster.errors import ConfigError
from cluster.routing.table import VariantFacts, deployment_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """`origin` is the error for an optional variant that cannot be served here."""

    name: str
    wanted: Wanted
    origin: Origin | ConfigError
    facts: VariantFacts
    app: str

    @property
    def deployment(self) -> str:
        return deployment_name(f"{self.name}-{self.app.rpartition('@')[2]}")


def candidate_of(name: str, wanted: Wanted, *, store: ModelStore, prefix: str) -> Candidate:
    """Raises: ConfigError when it is not optional and cannot be served here."""
    source = ModelStore(Path(wanted.store)) if wanted.store else store
    origin = origin_of(name, wanted.variant, source)
    artefact = origin.card.sha256 if isinstance(origin, Origin) else ""
    return Candidate(
        name=name,
        wanted=wanted,
        origin=origin,
        facts=facts_of(name, wanted.variant, origin),
        app=wanted.app(prefix, name, artefact),
    )
