"""Which replica a sequence belongs to: rendezvous hashing, the same answer at every door."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def rank(key: int | str, names: Iterable[str]) -> list[str]:
    """The names, best first for this key. When a name goes, only its own keys move.

    The keys 7 and "7" are two keys.
    """
    text = f"{type(key).__name__}:{key}"
    return sorted(names, key=lambda name: _weight(text, name), reverse=True)


def _weight(key: str, name: str) -> bytes:
    return hashlib.blake2b(f"{key}\0{name}".encode(), digest_size=8).digest()
