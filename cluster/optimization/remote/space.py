"""The room in a cache of models that several processes share: who uses what, what must go.

A version in use has a shared lock on its `.use` file, held until the process ends, however it ends;
whoever takes a version away holds that lock alone. Nothing is ever seen half: folders come and go
by a rename.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ConfigError

PLAN = ".plan"
"""In a partial folder: how many bytes it will have."""

_held: dict[Path, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One version in a mirror, whole or partly there. `used_at`: Unix time of its last use."""

    place: Place
    num_bytes: int
    used_at: float
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where one version of one model lies in a mirror, and its locks."""

    root: Path
    name: str
    version: str

    @property
    def folder(self) -> Path:
        return self.root / self.name / self.version

    @property
    def partial(self) -> Path:
        return self.root / self.name / f".{self.version}.partial"

    @property
    def use(self) -> Path:
        return self.root / self.name / f".{self.version}.use"

    @property
    def making(self) -> Path:
        return self.root / self.name / f".{self.version}.lock"


def hold(place: Place) -> None:
    """This process uses the version (or is about to) until it ends: nobody takes it away."""
    if place.use not in _held:
        place.use.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(place.use, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(held, fcntl.LOCK_SH)
        _held[place.use] = held
    os.utime(place.use)


def let_go(place: Place) -> None:
    """For a process that only brought it."""
    held = _held.pop(place.use, None)
    if held is not None:
        os.close(held)


@contextmanager
def alone(lock: Path, *, waits: bool = True) -> Iterator[bool]:
    """The lock, held by this process alone; False at once where it is taken and `waits` is not
    asked for."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(held)


def entries(cache: Path) -> list[Entry]:
    """Every version in every mirror of the cache, the least recently used first."""
    found = []
    for model in cache.glob("*/*"):
        if model.name.startswith(".") or not model.is_dir():
            continue
        for folder in model.iterdir():
            entry = _entry(model, folder)
            if entry is not None:
                found.append(entry)
    return sorted(found, key=lambda entry: entry.used_at)


def make_room(cache: Path, place: Place, num_bytes: int, max_bytes: int) -> None:
    """Room for `num_bytes` of a version that comes, noted in its partial folder.

    Raises: ConfigError when what is in use leaves too little.
    """
    with alone(cache / ".room"):
        others = [entry for entry in entries(cache) if entry.place != place]
        free_bytes = max_bytes - sum(entry.num_bytes for entry in others)
        for entry in others:
            if free_bytes >= num_bytes:
                break
            if _removed(entry):
                free_bytes += entry.num_bytes
        if free_bytes < num_bytes:
            raise ConfigError(
                f"the model cache {cache} has no room for {place.name} version {place.version}: it "
                f"needs {num_bytes} bytes, {max(0, free_bytes)} of {max_bytes} are free, the "
                "rest is in use. Raise store.cache.max_bytes",
                key="store.cache.max_bytes",
                value=max_bytes,
                allowed=f"at least {max_bytes - free_bytes + num_bytes}",
            )
        place.partial.mkdir(parents=True, exist_ok=True)
        (place.partial / PLAN).write_text(json.dumps(num_bytes))


def _entry(model: Path, folder: Path) -> Entry | None:
    is_whole = folder.name.isdecimal()
    if not is_whole and not folder.name.endswith(".partial"):
        return None
    version = folder.name.removeprefix(".").removesuffix(".partial")
    place = Place(model.parent, model.name, version)
    try:
        if is_whole:
            files = [file for file in folder.rglob("*") if file.is_file()]
            num_bytes = sum(file.stat().st_size for file in files)
        else:
            num_bytes = int((folder / PLAN).read_text())
        used_at = (place.use if place.use.exists() else folder).stat().st_mtime
    except (OSError, ValueError):
        return None  # it became whole, or went, while we looked
    return Entry(place=place, num_bytes=num_bytes, used_at=used_at, is_whole=is_whole)


def _removed(entry: Entry) -> bool:
    place = entry.place
    with alone(place.use, waits=False) as is_free:
        if not is_free:
            return False
        folder = place.folder if entry.is_whole else place.partial
        gone = folder.with_name(f".{folder.name.strip('.')}.{os.getpid()}.gone")
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    return True
