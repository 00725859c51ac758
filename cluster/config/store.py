"""The model store: `<root>/<name>/<version>/model.yaml` with the artefact beside it.

Folders whose name starts with a dot (`.archives`, `.samples`, half-written versions) are not
models.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from cluster.config.model_card import ModelCard
from cluster.config.yaml_file import read_section
from cluster.errors import ConfigError

CARD_FILE = "model.yaml"
_FETCH_HINT = "squadron models fetch makes the example models, squadron models add PATH adds one"


def default_root() -> Path:
    """`SQUADRON_MODEL_STORE`, else `models` in the working directory."""
    return Path(os.environ.get("SQUADRON_MODEL_STORE") or "models")


class ModelStore:
    """Reads the store. Versions are whole numbers; the latest is the greatest."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list(self) -> tuple[ModelCard, ...]:
        """Every version of every model, by name and then by number.

        Raises: ConfigError for a card that is wrong.
        """
        return tuple(
            self._read(name, version) for name in self._names() for version in self._versions(name)
        )

    def readable(self) -> tuple[tuple[ModelCard, ...], tuple[str, ...]]:
        """The cards of `list` that are right, and what is wrong with each of the others."""
        cards: list[ModelCard] = []
        problems: list[str] = []
        for name in self._names():
            for version in self._versions(name):
                try:
                    cards.append(self._read(name, version))
                except ConfigError as error:
                    # One broken card says nothing about its neighbours.
                    problems.append(error.message)
        return tuple(cards), tuple(problems)

    def versions(self, name: str) -> tuple[ModelCard, ...]:
        """The cards of one model by number; none when it is not in the store."""
        return tuple(self._read(name, version) for version in self._versions(name))

    def has(self, name: str, version: str) -> bool:
        return (self.root / name / version / CARD_FILE).is_file()

    def card(self, name: str, version: str = "") -> ModelCard:
        """One version's card; the latest version when `version` is empty.

        Raises: ConfigError naming the model, where it was looked for and what is there.
        """
        return self._read(name, self._resolve(name, version))

    def folder(self, name: str, version: str = "") -> Path:
        """The folder of a version that exists. Raises: as `card`."""
        return self.root / name / self._resolve(name, version)

    def verify(self, name: str, version: str = "") -> ModelCard:
        """The card, after its artefact was hashed and found to be the one that was written.

        Raises: ConfigError with the file, the expected and the found hash.
        """
        card = self.card(name, version)
        if not card.sha256:
            return card
        artefact = self.folder(name, card.version) / card.artefact
        if not artefact.is_file():
            raise ConfigError(
                f"{name} version {card.version}: the artefact {artefact} is missing. "
                "Remove the version's folder and fetch or add it again",
                file=str(artefact),
            )
        found = sha256_of(artefact)
        if found != card.sha256:
            raise ConfigError(
                f"{artefact}: not the file that was put into the store: expected sha256 "
                f"{card.sha256}, found {found}. Remove the version's folder and fetch or add it "
                "again",
                file=str(artefact),
                key="sha256",
                value=found,
                allowed=card.sha256,
            )
        return card

    def _read(self, name: str, version: str) -> ModelCard:
        path = self.root / name / version / CARD_FILE
        card = read_section(path, ModelCard)
        if (card.name, card.version) != (name, version):
            raise ConfigError(
                f"{path}: the card says {card.name} version {card.version}, its folder says "
                f"{name} version {version}",
                file=str(path),
                key="name",
            )
        return card

    def _resolve(self, name: str, version: str) -> str:
        versions = self._versions(name)
        if version and version in versions:
            return version
        if versions and not version:
            return versions[-1]
        looked = self.root.absolute()
        if versions:
            raise ConfigError(
                f"no version {version} of model {name!r} in {looked}; there: {', '.join(versions)}",
                key="version",
                value=version,
                allowed=", ".join(versions),
            )
        there = ", ".join(self._names()) or "nothing"
        raise ConfigError(
            f"no model {name!r} in the store {looked}; there: {there}. {_FETCH_HINT}",
            key="model",
            value=name,
            allowed=there,
        )

    def _names(self) -> tuple[str, ...]:
        if not self.root.is_dir():
            return ()
        folders = (path.name for path in self.root.iterdir() if not path.name.startswith("."))
        return tuple(sorted(name for name in folders if self._versions(name)))

    def _versions(self, name: str) -> tuple[str, ...]:
        if not name or name.startswith(".") or "/" in name or not (self.root / name).is_dir():
            return ()
        found = (path for path in (self.root / name).iterdir() if path.name.isdecimal())
        versions = (path.name for path in found if (path / CARD_FILE).is_file())
        return tuple(sorted(versions, key=int))


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends, whole or not at all.

    Raises: ConfigError when `target` came to be in the meantime (it is left as it is).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: a rename is atomic only inside one file system.
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        # mkdtemp makes it private; a store is read by every process that serves from it.
        folder.chmod(0o755)
        yield folder
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():
                raise
            raise ConfigError(
                f"{target} exists already; it was left as it is", file=str(target)
            ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_version(root: Path, name: str, version: str) -> Iterator[Path]:
    """A folder to fill and to `seal`; it appears in the store when the block ends without error."""
    with new_folder(root / name / version) as folder:
        yield folder
        if not (folder / CARD_FILE).is_file():
            raise RuntimeError(f"{name} version {version}: filled without a card")


def seal(folder: Path, card: ModelCard) -> ModelCard:
    """Write the card into its folder with the artefact's hash; returns it with the hash."""
    artefact = folder / card.artefact
    digest = sha256_of(artefact) if card.artefact and artefact.is_file() else ""
    sealed = card.model_copy(update={"sha256": digest})
    # With the defaults: a card must mean the same when a later Squadron has other defaults.
    content = yaml.safe_dump(sealed.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (folder / CARD_FILE).write_text(content, encoding="utf-8")
    return sealed


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
