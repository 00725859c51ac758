"""Built artefacts, kept by what they were made from.

    <root>/<first two of the key>/<key>/   the artefact's files and entry.json
    <root>/locks/<key>.lock                who builds or removes the entry

An entry is written beside its place and renamed into it: whole or not at all. entry.json holds size
and SHA-256 of every file; an entry that does not match is removed and built again. Nothing in an
entry is ever unpickled or imported here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cluster.config.store import sha256_of
from cluster.engines.cache.disk import ran_out_of_space
from cluster.errors import ConfigError

ENTRY_FILE = "entry.json"
DEFAULT_MAX_BYTES = 10 * 2**30
PARTIAL = ".partial-"
ABANDONED_S = 86_400.0
"""A build that has written no new file for a day is taken for dead."""
GRACE_S = 900.0
"""An entry used this recently is not evicted: another process may be about to open its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKey:
    """`parts` are everything the artefact depends on; the same parts are the same artefact."""

    digest: str
    parts: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheHit:
    """An entry's folder. `was_built`: now, by this call."""

    key: CacheKey
    folder: Path
    was_built: bool
    num_bytes: int


def cache_key(
    *,
    model_sha256: str,
    recipe: Mapping[str, object],
    libraries: Mapping[str, str],
    hardware: Mapping[str, object],
) -> CacheKey:
    """The key of one recipe applied to one model by these libraries on this hardware."""
    parts: dict[str, object] = {
        "model_sha256": model_sha256,
        "recipe": dict(recipe),
        "libraries": dict(libraries),
        "hardware": dict(hardware),
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return CacheKey(digest=hashlib.sha256(text.encode()).hexdigest(), parts=parts)


def default_cache_root() -> Path:
    """`SQUADRON_ARTEFACT_CACHE`, else `squadron/artefacts` in the user's cache folder."""
    if named := os.environ.get("SQUADRON_ARTEFACT_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "squadron" / "artefacts"


class ArtefactCache:
    """Bounded by bytes; the least recently used entries go first. Safe among processes of a host.

    Raises: ConfigError from `get_or_build` when there is no space left (nothing half-written
    stays), and whatever `build` raises.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        grace_s: float = GRACE_S,
    ) -> None:
        if max_bytes <= 0:
            raise ConfigError(
                f"max_bytes is {max_bytes}; allowed: above 0", key="max_bytes", value=max_bytes
            )
        self.root = root or default_cache_root()
        self.max_bytes = max_bytes
        self._grace_s = grace_s
        self._holds: list[set[str]] = []

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What is asked for meanwhile is not evicted before the end, however long that takes: by
        this process because it knows, by others because it counts as used with every request."""
        held: set[str] = set()
        self._holds.append(held)
        try:
            yield
        finally:
            self._holds = [each for each in self._holds if each is not held]

    def get_or_build(self, key: CacheKey, build: Callable[[Path], None]) -> CacheHit:
        """The entry of `key`; `build` fills an empty folder when there is none or it is damaged.

        Of several processes that want the same entry one builds, the others wait for it.
        """
        folder = self._folder(key.digest)
        with self._lock(key.digest):
            num_bytes = self._check(folder)
            if num_bytes is not None:
                os.utime(folder / ENTRY_FILE)
                self._hold(key.digest)
                return CacheHit(key=key, folder=folder, was_built=False, num_bytes=num_bytes)
            shutil.rmtree(folder, ignore_errors=True)
            num_bytes = self._build(key, folder, build)
            self._hold(key.digest)
        self.evict(keep=key.digest)
        return CacheHit(key=key, folder=folder, was_built=True, num_bytes=num_bytes)

    def _hold(self, digest: str) -> None:
        for held in self._holds:
            held.add(digest)
        every: set[str] = set().union(*self._holds)
        for each in every:
            # Gone: somebody emptied the folder by hand.
            with suppress(OSError):
                os.utime(self._folder(each) / ENTRY_FILE)

    def num_bytes(self) -> int:
        return sum(size for _, _, size in self._entries())

    def evict(self, *, keep: str = "") -> int:
        """Remove least recently used entries until the rest fits; returns how many were removed.

        `keep`, what is held, entries in use by another process and those used within the grace
        stay.
        """
        held = {keep}.union(*self._holds)
        self._sweep()
        entries = sorted(self._entries())
        total = sum(size for _, _, size in entries)
        now_s = time.time()
        removed = 0
        for used_s, folder, size in entries:
            if total <= self.max_bytes:
                break
            if folder.name in held or now_s - used_s < self._grace_s:
                continue
            try:
                with self._lock(folder.name, timeout_s=0):
                    shutil.rmtree(folder, ignore_errors=True)
            except Timeout:
                continue
            total -= size
            removed += 1
        return removed

    def _sweep(self) -> None:
        """Remove what builds left behind whose process was killed."""
        for folder in self.root.glob(f"??/{PARTIAL}*"):
            try:
                # Each file that a build writes into it renews the folder's time.
                is_old = time.time() - folder.stat().st_mtime > ABANDONED_S
            except OSError:
                continue
            if is_old:
                shutil.rmtree(folder, ignore_errors=True)

    def _build(self, key: CacheKey, folder: Path, build: Callable[[Path], None]) -> int:
        partial: Path | None = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder.parent))
            build(partial)
            files = {
                str(path.relative_to(partial)): path
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            }
            if not files:
                raise ConfigError(f"{folder.name[:12]}: the build left no file", key="build")
            content = {
                "parts": key.parts,
                "files": {
                    name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
                    for name, path in files.items()
                },
            }
            (partial / ENTRY_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
            partial.chmod(0o755)
            partial.rename(folder)
            return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        except Exception as error:
            # What was written is still there, so the disk shows it even if the error does not.
            if not ran_out_of_space(error, partial or self.root):
                raise
            raise ConfigError(
                f"no space left in {self.root} (or in {tempfile.gettempdir()}, for what is written "
                "on the way) while building an artefact; nothing half-written was kept. Free "
                "space, or choose other folders with SQUADRON_ARTEFACT_CACHE and TMPDIR",
                file=str(self.root),
                key="cache_dir",
            ) from None
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)

    def _check(self, folder: Path) -> int | None:
        """The entry's size when it is there and each of its files is the one written."""
        try:
            files = json.loads((folder / ENTRY_FILE).read_text(encoding="utf-8"))["files"]
            for name, expected in files.items():
                path = folder / name
                if not path.resolve().is_relative_to(folder.resolve()):
                    return None
                if (
                    path.stat().st_size != expected["bytes"]
                    or sha256_of(path) != expected["sha256"]
                ):
                    return None
            return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Missing, cut short or overwritten: all the same to the caller, who builds it again.
            return None

    def _entries(self) -> list[tuple[float, Path, int]]:
        """Last use, folder and size of every entry."""
        found: list[tuple[float, Path, int]] = []
        for folder in self.root.glob("??/[!.]*"):
            try:
                used_s = (folder / ENTRY_FILE).stat().st_mtime
                size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            except OSError:
                # Removed by another process in this moment.
                continue
            found.append((used_s, folder, size))
        return found

    def _folder(self, digest: str) -> Path:
        return self.root / digest[:2] / digest

    def _lock(self, digest: str, timeout_s: float = -1) -> FileLock:
        locks = self.root / "locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.root} cannot be the artefact cache: {error.strerror}; choose another "
                "folder with SQUADRON_ARTEFACT_CACHE",
                file=str(self.root),
                key="cache_dir",
            ) from None
        return FileLock(locks / f"{digest}.lock", timeout=timeout_s)
