"""The file of a model version: where it is, and that it is the one the card means."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cluster.engines.engine import EngineSetup
from cluster.errors import ConfigError


def artefact_file(setup: EngineSetup) -> Path:
    """The artefact's path, after its checksum was compared with the card's (when it gives one).

    Raises: ConfigError naming the file: missing, outside the model's folder, not the one meant.
    """
    card = setup.card
    if not card.artefact:
        raise ConfigError(
            f"model {card.name!r}: format {card.format} needs `artefact`, the name of its file",
            key="artefact",
        )
    file = inside(setup.folder, card.artefact)
    if not file.is_file():
        raise ConfigError(f"{file}: the artefact is missing", file=str(file), key="artefact")
    if card.sha256:
        check_sha256(file, card.sha256)
    return file


def inside(folder: Path, name: str) -> Path:
    """Raises: ConfigError for a path that leaves the folder."""
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{file}: lies outside the model's folder {folder}", file=str(file))
    return file


def check_sha256(file: Path, expected: str) -> None:
    """Raises: ConfigError naming the file, the expected and the found checksum."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected.lower():
        raise ConfigError(
            f"{file}: the file is not the one that its card means: expected sha256 {expected}, "
            f"found {found}",
            file=str(file),
            key="sha256",
            value=found,
            allowed=expected,
        )
