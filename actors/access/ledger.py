"""What each key has used, counted once for all doors of a node."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.access.quota import Bucket

_ENTRY = struct.Struct("<dddd")


class Ledger:
    """A small file a key, mapped by every door and locked while it is looked at (3 µs). A door that
    dies lets go of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[str, Entry] = {}

    def of(self, key_id: str) -> Entry:
        found = self._entries.get(key_id)
        if found is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self._entries[key_id] = Entry(self._folder / key_id)
        return found


class Entry:
    """Two buckets: requests and language-model tokens."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self._file)
        with self.locked():
            if os.fstat(self._file).st_size < _ENTRY.size:
                os.ftruncate(self._file, _ENTRY.size)
        self._memory = mmap.mmap(self._file, _ENTRY.size)

    @contextmanager
    def locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def read(self) -> tuple[Bucket | None, Bucket | None]:
        """None for what was never used."""
        requests, requests_s, tokens, tokens_s = _ENTRY.unpack(self._memory[:])
        return (
            Bucket(level=requests, at_s=requests_s) if requests_s else None,
            Bucket(level=tokens, at_s=tokens_s) if tokens_s else None,
        )

    def write(self, requests: Bucket | None, tokens: Bucket | None) -> None:
        values: list[float] = []
        for bucket in (requests, tokens):
            values += (bucket.level, bucket.at_s) if bucket is not None else (0.0, 0.0)
        self._memory[:] = _ENTRY.pack(*values)


def now_s() -> float:
    """The same in every process of the machine."""
    return time.monotonic()
