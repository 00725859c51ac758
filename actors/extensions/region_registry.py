"""The regions that are registered on this node: one file, which all its doors read and write.

A registration may reach any of the doors that share a port, and the next request another one.
The file is replaced as a whole, so its inode tells a door whether anything changed (one `stat`).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from cluster.errors import AlreadyExists, InvalidRequest
from cluster.protocols.extensions.shared_memory import Registration

Stamp = tuple[int, int]
"""Inode and time of change of the file; (0, 0) while there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """`device` and `inode` are the object's: a key may come to mean another one. `holder`: a path
    that reaches the object after its key is gone, while the door that registered it lives.
    `token` is this registration's own; its lock file is held by every door that uses the region.
    """

    name: str
    key: str
    offset: int
    byte_size: int
    device: int
    inode: int
    holder: str
    token: str


class RegionRegistry:
    """Reads are safe at any time; changes exclude each other across processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "regions.json"

    def stamp(self) -> Stamp:
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            return (0, 0)
        return (found.st_ino, found.st_mtime_ns)

    def entries(self) -> dict[str, Registered]:
        """By name."""
        try:
            content = orjson.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return {entry["name"]: Registered(**entry) for entry in content}

    def lock_file(self, token: str) -> Path:
        return self._folder / f"{token}.lock"

    def add(
        self, asked: Registration, about: os.stat_result, holder: str, max_regions: int
    ) -> Registered:
        """`about`: the object. Raises: AlreadyExists; InvalidRequest when there are too many."""
        with self._changing() as entries:
            if asked.name in entries:
                raise AlreadyExists(f"shared memory region '{asked.name}' already in manager")
            if len(entries) >= max_regions:
                raise InvalidRequest(
                    f"failed to register shared memory region '{asked.name}': there are "
                    f"{len(entries)} regions, the limit server.shared_memory.max_regions"
                )
            found = Registered(
                name=asked.name,
                key=asked.key,
                offset=asked.offset,
                byte_size=asked.byte_size,
                device=about.st_dev,
                inode=about.st_ino,
                holder=holder,
                token=secrets.token_hex(8),
            )
            self.lock_file(found.token).touch(mode=0o600)
            self._write({**entries, found.name: found})
        return found

    def remove(self, name: str = "") -> list[Registered]:
        """What was registered under the name, or everything; no door can begin to use it now."""
        with self._changing() as entries:
            gone = [entry for entry in entries.values() if name in ("", entry.name)]
            if gone:
                self._write({k: v for k, v in entries.items() if v not in gone})
        return gone

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Registered]]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "registry.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.entries()

    def _write(self, entries: Mapping[str, Registered]) -> None:
        new = self._file.with_suffix(".new")
        new.write_bytes(orjson.dumps([asdict(entry) for entry in entries.values()]))
        # The kernel's own times are as coarse as 4 ms, and an inode may come again at once.
        changed_ns = max(time.time_ns(), self.stamp()[1] + 1)
        os.utime(new, ns=(changed_ns, changed_ns))
        new.replace(self._file)
