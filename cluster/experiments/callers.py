"""Distinct callers an arm: the units of a split that is sticky."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from cluster.experiments.counts import NUM_CLUSTERS

MAX_CALLERS = 4096
"""That many are told apart under one set of weights; later ones are not counted. 4,096 units show a
share that is off by three points (see METHOD.md, section 9)."""


def digest_of(key: str) -> int:
    return crc32(key.encode())


def cluster_of(digest: int) -> int:
    return digest % NUM_CLUSTERS


class Callers:
    """Which callers were met. `digests` is all there is to keep."""

    def __init__(self, digests: Iterable[int] = ()) -> None:
        self.digests = set(digests)

    def is_new(self, digest: int) -> bool:
        """Whether it is the first time; from then on it is not."""
        if digest in self.digests or len(self.digests) >= MAX_CALLERS:
            return False
        self.digests.add(digest)
        return True
