"""A model store at a URI, version by version in a cache of this machine.

A version never changes once it is published; so what is in the cache is used without asking. Which
is the newest is asked, and when nobody answers the newest of the cache is taken: a pod starts again
also while the object store is away.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from cluster.config.model_card import ModelCard
from cluster.config.section import NAME_PATTERN
from cluster.config.storage.location import (
    CACHE_VARIABLE,
    ModelCacheConfig,
    StoreUri,
    parse_location,
)
from cluster.config.store import CARD_FILE, ModelStore, sha256_of
from cluster.config.yaml_file import read_section
from cluster.errors import ConfigError
from cluster.optimization.progress import Progress, Silent
from cluster.optimization.remote.space import PLAN, Place, alone, hold, let_go, make_room
from cluster.optimization.remote.transfer import SUMS, ObjectStore, RemoteFile

_NO_BOUND = 2**62

logger = logging.getLogger("squadron.models")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteVersion:
    """One version of one model at a URI, as any node can bring it. `cache`: as configured."""

    uri: str
    name: str
    version: str
    cache: str
    max_bytes: int

    def bring(self) -> Path:
        """Its folder on this node, held until this process ends. Raises: ConfigError."""
        config = ModelCacheConfig(path=self.cache, max_bytes=self.max_bytes)
        store = open_store(self.uri, config)
        return store.folder(self.name, self.version)


class MirroredStore(ModelStore):
    """Reads as a store does; what is asked for is brought first."""

    def __init__(
        self,
        uri: StoreUri,
        config: ModelCacheConfig,
        progress: Progress | None = None,
        *,
        cache: Path | None = None,
    ) -> None:
        """`cache`: instead of the configured one."""
        self.uri = uri
        self._config = config
        self._cache = cache or cache_folder(config)
        self._progress: Progress = progress or Silent()
        self._newest: dict[str, str] = {}
        super().__init__(self._cache / uri.folder)

    def card(self, name: str, version: str = "") -> ModelCard:
        return super().card(name, self._brought(name, version))

    def folder(self, name: str, version: str = "") -> Path:
        return super().folder(name, self._brought(name, version))

    def versions(self, name: str) -> tuple[ModelCard, ...]:
        """Their cards alone are read; what is here already when the URI cannot be asked."""
        try:
            published = self.published(name)
        except ConfigError as error:
            logger.warning("%s; the versions in the cache are listed", error.message)
            return super().versions(name)
        store = ObjectStore(self.uri)
        found = []
        for version in published:
            file = f"{name}/{version}/{CARD_FILE}"
            found.append(_card(store.text(file), f"{self.uri}/{file}"))
        return tuple(found)

    def newest(self, name: str) -> str:
        """The newest version. Raises: ConfigError when there is none."""
        return self._asked_newest(name) if is_name(name) else self._resolve(name, "")

    def remote(self, name: str, version: str) -> RemoteVersion:
        return RemoteVersion(
            uri=str(self.uri),
            name=name,
            version=version,
            cache=self._config.path,
            max_bytes=self._config.max_bytes,
        )

    def published(self, name: str) -> tuple[str, ...]:
        """Versions at the URI by number. Raises: ConfigError when it cannot be asked."""
        if not is_name(name):
            return ()
        store = ObjectStore(self.uri)
        found = [each for each in store.folders(name) if each.isdecimal()]
        whole = (each for each in found if store.has(f"{name}/{each}/{CARD_FILE}"))
        return tuple(sorted(whole, key=int))

    def _brought(self, name: str, version: str) -> str:
        """The version, which is here now; where none is named, the newest when first asked."""
        if not is_name(name) or (version and not version.isdecimal()):
            self._resolve(name, version)  # which refuses it in the store's own words
        if not version:
            version = self._newest.get(name) or self._asked_newest(name)
            self._newest[name] = version
        place = Place(self.root, name, version)
        # Held before it is looked for: nobody takes it away between the two.
        hold(place)
        if (place.folder / CARD_FILE).is_file():
            return version
        with alone(place.making):
            if not (place.folder / CARD_FILE).is_file():
                self._download(place)
        return version

    def _asked_newest(self, name: str) -> str:
        cached = self._versions(name)
        try:
            published = self.published(name)
        except ConfigError as error:
            if not cached:
                raise
            logger.warning("%s; the newest version in the cache is used", error.message)
            return cached[-1]
        if not published:
            raise ConfigError(
                f"no model {name!r} at {self.uri} (expected {name}/VERSION/{CARD_FILE} below it)",
                key="model",
                value=name,
            )
        return published[-1]

    def _download(self, place: Place) -> None:
        store = ObjectStore(self.uri)
        where = f"{place.name}/{place.version}"
        files = store.files(where)
        if CARD_FILE not in {file.name for file in files}:
            raise ConfigError(
                f"no version {place.version} of model {place.name!r} at {self.uri}: "
                f"{where}/{CARD_FILE} is not there",
                key="version",
                value=place.version,
            )
        total = sum(file.num_bytes for file in files)
        make_room(self._cache, place, total, self._config.max_bytes)
        sums = _sums(store, files, f"{self.uri}/{where}")
        for file in files:
            target = place.partial / file.name
            if not target.is_file() or target.stat().st_size != file.num_bytes:
                store.bring(file, target, self._progress)
            _check(target, sums.get(file.name, ""), f"{self.uri}/{where}/{file.name}")
        card = read_section(place.partial / CARD_FILE, ModelCard)
        if card.sha256:
            _check(
                place.partial / card.artefact, card.sha256, f"{self.uri}/{where}/{card.artefact}"
            )
        (place.partial / PLAN).unlink()
        place.partial.rename(place.folder)


def open_store(
    location: str, config: ModelCacheConfig | None = None, progress: Progress | None = None
) -> ModelStore:
    """The store at a folder or URI. Raises: ConfigError for a URI that cannot be one."""
    found = parse_location(location)
    if isinstance(found, Path):
        return ModelStore(found)
    return MirroredStore(found, config or ModelCacheConfig(), progress)


def cache_folder(config: ModelCacheConfig) -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or config.path).expanduser().absolute()


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """`is_new`: brought just now; otherwise it was in the store already. `num_bytes`: of all its
    files."""

    name: str
    version: str
    folder: Path
    is_new: bool
    num_bytes: int


def bring_into(root: Path, location: str, progress: Progress | None = None) -> Brought:
    """`URI/NAME` or `URI/NAME/VERSION` into the store at `root`; what is there is left alone.

    Raises: ConfigError for what is no such URI, and as `MirroredStore` does.
    """
    base, _, last = location.rstrip("/").rpartition("/")
    version = last if last.isdecimal() else ""
    base, _, name = base.rpartition("/") if version else (base, "", last)
    uri = parse_location(base)
    if not isinstance(uri, StoreUri):
        raise ConfigError(
            f"{location}: only models at a URI are fetched; `--store` names a folder",
            key="name",
            value=location,
            allowed="s3://…/NAME, gs://…/NAME, hf://…/NAME",
        )
    # Beside the store, so that what has come moves in by a rename.
    config = ModelCacheConfig(path=str(root / ".mirror"), max_bytes=_NO_BOUND)
    mirror = MirroredStore(uri, config, progress, cache=root / ".mirror")
    version = version or mirror.newest(name)
    target = root / name / version
    is_new = not (target / CARD_FILE).is_file()
    if is_new:
        folder = mirror.folder(name, version)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        let_go(Place(mirror.root, name, version))
    num_bytes = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    return Brought(name=name, version=version, folder=target, is_new=is_new, num_bytes=num_bytes)


def publish(store: ModelStore, uri: StoreUri, name: str, version: str = "") -> ModelCard:
    """Put a version at a URI with the hashes of its files; its card comes last, so that nobody
    sees it before it is whole. Raises: ConfigError when that version is there already."""
    card = store.verify(name, version)
    folder = store.folder(name, card.version)
    remote = ObjectStore(uri)
    where = f"{name}/{card.version}"
    if remote.has(f"{where}/{CARD_FILE}"):
        raise ConfigError(
            f"{uri}/{where} is there already; a version never changes, publish a new one",
            key="version",
            value=card.version,
        )
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    names = [file.relative_to(folder).as_posix() for file in files]
    sums = "".join(f"{sha256_of(file)}  {each}\n" for file, each in zip(files, names, strict=True))
    for file, each in zip(files, names, strict=True):
        if each != CARD_FILE:
            remote.send(file, f"{where}/{each}")
    remote.write(sums.encode(), f"{where}/{SUMS}")
    remote.send(folder / CARD_FILE, f"{where}/{CARD_FILE}")
    return card


def is_name(name: str) -> bool:
    """Whether it can be a model's: nothing else becomes a part of a path."""
    return re.fullmatch(NAME_PATTERN, name) is not None


def _card(text: str, where: str) -> ModelCard:
    try:
        return ModelCard.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{where}: not a model card: {error}", file=where) from None


def _sums(store: ObjectStore, files: tuple[RemoteFile, ...], where: str) -> dict[str, str]:
    """File -> SHA-256 as the version's own list says; nothing where it has none."""
    listing = next((file for file in files if file.name == SUMS), None)
    if listing is None:
        return {}
    lines = store.read(listing).decode(errors="replace").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    there = {file.name for file in files} - {SUMS}
    if there != sums.keys():
        wrong = ", ".join(sorted(there ^ sums.keys()))
        raise ConfigError(
            f"{where}: {SUMS} and what is there are not the same files: {wrong}", file=SUMS
        )
    return sums


def _check(file: Path, expected: str, told: str) -> None:
    """Raises: ConfigError for another content, which is thrown away."""
    if not expected:
        return
    found = sha256_of(file)
    if found != expected:
        file.unlink()
        raise ConfigError(
            f"{told}: expected sha256 {expected}, found {found}; it was thrown away",
            file=told,
            key="sha256",
            value=found,
            allowed=expected,
        )
