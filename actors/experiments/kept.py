"""What must outlive the controller and the cluster: traffic set at run time, experiments, which
request met which arm, models loaded at run time, events.

It is written twice. Ray's internal key-value store lives in the head's GCS and is there on whatever
node the controller comes back on, also after `kill -9`. A file outlives a cluster whose GCS is in
memory, which is Ray's default; the newer of the two counts. With a durable GCS (RocksDB or Redis)
the store alone is enough.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

from actors.experiments.kept_runs import KeptRun, RunKeeper
from cluster.config.cache import PostgresConfig, RedisConfig
from cluster.experiments.report import Feedback, HandedOn
from cluster.experiments.state import ExperimentState

_NAMESPACE = b"squadron"
FOLDER_VARIABLE = "SQUADRON_STATE"

logger = logging.getLogger("squadron.controller")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened at `at_s` (Unix time) to `subject`, and why."""

    at_s: float
    kind: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """`reports`: the last number counted of each door. `callers`: experiment -> digests of those
    met under its present weights. `asked`: experiment -> its requests, to be found when they are
    rated; `feedback`: values for requests of which no door has told yet. `repository`: what was
    loaded at run time, as `actors.repository.state` says it; `seasons`: what the autoscaler has
    learned, in its own words; `generation`: of the newest configuration that it was kept under."""

    saved_s: float = 0.0
    experiments: Mapping[str, ExperimentState] = field(default_factory=dict)
    callers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    reports: Mapping[str, int] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    feedback: tuple[tuple[str, Feedback], ...] = ()
    asked: Mapping[str, tuple[KeptRun, ...]] = field(default_factory=dict)
    handed_on: Mapping[str, HandedOn] = field(default_factory=dict)
    repository: str = ""
    seasons: str = ""
    generation: int = 0


_KEPT = TypeAdapter(Kept)


class Keeper(RunKeeper, Protocol):
    """Gives back what it was given last, also to another process."""

    def read(self) -> Kept: ...

    def write(self, kept: Kept) -> None: ...


_NO_REDIS = RedisConfig()
_NO_POSTGRES = PostgresConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSetup:
    """`folder`: as configured; `place` tells servers apart whose applications have one name."""

    folder: str = ""
    place: str = ""
    redis: RedisConfig = _NO_REDIS
    postgres: PostgresConfig = _NO_POSTGRES

    def digest(self, app: str) -> str:
        return hashlib.sha256(f"{app}\0{self.place}".encode()).hexdigest()[:12]


class Store:
    """Of one application."""

    def __init__(self, app: str, setup: StateSetup) -> None:
        self._key = f"experiments:{app}"
        self._place = setup.digest(app)
        self._file = state_folder(setup.folder) / f"{self._place}.json"
        self._runs = self._file.with_suffix(".asked")

    def read(self) -> Kept:
        """The newer of what the store and the file have."""
        kept = [parsed(_internal_kv_get(self._key, namespace=_NAMESPACE)), parsed(self._read())]
        return max(kept, key=lambda each: each.saved_s)

    def write(self, kept: Kept) -> None:
        content = dumped(kept)
        _internal_kv_put(self._key, content, overwrite=True, namespace=_NAMESPACE)
        _replace(self._file, content)

    def runs(self) -> Mapping[int, bytes]:
        found = {int(file.stem): file.read_bytes() for file in self._runs.glob("*.run")}
        prefix = self._run_key("").encode()
        for key in _internal_kv_list(prefix, namespace=_NAMESPACE):
            content = _internal_kv_get(key, namespace=_NAMESPACE)
            if content is not None:
                found[int(key.removeprefix(prefix))] = content
        return found

    def write_run(self, number: int, content: bytes) -> None:
        _internal_kv_put(self._run_key(number), content, overwrite=True, namespace=_NAMESPACE)
        _replace(self._runs / f"{number}.run", content)

    def drop_run(self, number: int) -> None:
        _internal_kv_del(self._run_key(number), namespace=_NAMESPACE)
        (self._runs / f"{number}.run").unlink(missing_ok=True)

    def _run_key(self, number: int | str) -> str:
        return f"asked:{self._place}:{number}"

    def _read(self) -> bytes | None:
        try:
            return self._file.read_bytes()
        except OSError:
            return None


class Newest:
    """Several keepers as one: everything goes to all of them, the newest of them counts."""

    def __init__(self, *keepers: Keeper) -> None:
        self._keepers = keepers

    def read(self) -> Kept:
        return max((keeper.read() for keeper in self._keepers), key=lambda kept: kept.saved_s)

    def write(self, kept: Kept) -> None:
        for keeper in self._keepers:
            keeper.write(kept)

    def runs(self) -> Mapping[int, bytes]:
        return dict(ChainMap(*(dict(keeper.runs()) for keeper in self._keepers)))

    def write_run(self, number: int, content: bytes) -> None:
        for keeper in self._keepers:
            keeper.write_run(number, content)

    def drop_run(self, number: int) -> None:
        for keeper in self._keepers:
            keeper.drop_run(number)


def _replace(file: Path, content: bytes) -> None:
    """As a whole, or not at all."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(f".{os.getpid()}.new")
        new.write_bytes(content)
        new.replace(file)
    except OSError as error:
        logger.warning("state is kept in Ray only: %s", error)


def state_folder(configured: str) -> Path:
    found = configured or os.environ.get(FOLDER_VARIABLE)
    return Path(found) if found else Path.home() / ".local" / "state" / "squadron"


def dumped(kept: Kept) -> bytes:
    return _KEPT.dump_json(kept)


def parsed(content: bytes | None) -> Kept:
    """Nothing when nothing was kept, or when it is of a version that says it in other words."""
    if not content:
        return Kept()
    try:
        return _KEPT.validate_json(content)
    except ValidationError as error:
        logger.warning("what was kept of experiments cannot be read and is left: %s", error)
        return Kept()
