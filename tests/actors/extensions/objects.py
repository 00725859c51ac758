"""Shared-memory objects as a caller makes them: a file of /dev/shm that it can cut short."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "/squadron_test_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    key: str

    @property
    def path(self) -> Path:
        return Path("/dev/shm") / self.key.lstrip("/")

    def put(self, data: bytes, at: int = 0) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def get(self, size: int, at: int = 0) -> bytes:
        with self.path.open("rb") as file:
            file.seek(at)
            return file.read(size)

    def cut(self, size: int) -> None:
        os.truncate(self.path, size)


@contextmanager
def shared_object(size: int) -> Iterator[Object]:
    found = Object(key=f"{PREFIX}{secrets.token_hex(6)}")
    found.path.write_bytes(bytes(size))
    try:
        yield found
    finally:
        found.path.unlink(missing_ok=True)
