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
    artefact = _content(origin) if isinstance(origin, Origin) else ""
    return Candidate(
        name=name,
        wanted=wanted,
        origin=origin,
        facts=facts_of(name, wanted.variant, origin),
        app=wanted.app(prefix, name, artefact),
    )


def _content(origin: Origin) -> str:
    """What the store holds now: the card, which has the artefact's hash or, where that is a folder
    or code, the state of the files. Another version of it, or the same with files replaced, is
    another application; else a model that is loaded again would stay what it was."""
    card = origin.card.model_dump_json()
    if origin.card.sha256 or origin.remote is not None or origin.folder == Path.cwd():
        return card
    files = sorted(file for file in origin.folder.rglob("*") if _is_of_model(file))
    return "\0".join((card, *(_state(file, origin.folder) for file in files)))


def _is_of_model(file: Path) -> bool:
    return file.is_file() and file.parent.name != "__pycache__"


def _state(file: Path, folder: Path) -> str:
    found = file.stat()
    return f"{file.relative_to(folder)} {found.st_size} {found.st_mtime_ns}"
