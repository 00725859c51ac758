"""Which request met which arm, so that feedback finds it: eight bytes a request.

An entry is 48 bits of the request id's digest, 10 of its place (the arm and the weights that it was
split by, one of its run's `places`) and 6 of its cluster. Runs are sorted and merged as a
log-structured merge tree merges them (O'Neil et al., 1996): few of them to search and to keep, and
each entry is written again only as often as its run doubles. A request that was rated gets an entry
that says so; of several for one id the newest counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Entries = NDArray[np.uint64]

PLACE_BITS, CLUSTER_BITS = 10, 6
MAX_PLACES = (1 << PLACE_BITS) - 1
_RATED = MAX_PLACES
_CODE_BITS = np.uint64(PLACE_BITS + CLUSTER_BITS)
_CODE = np.uint64((1 << (PLACE_BITS + CLUSTER_BITS)) - 1)
_CLUSTER = np.uint64((1 << CLUSTER_BITS) - 1)

PARTS = 16
"""A run holds at most that part of what is remembered: it is given up as a whole."""
MIN_PART = 256
MAX_RUNS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a request went, and what it was split by."""

    arm: str
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """`entries`: ascending, each id once. `number`: its name; a newer run has a greater one."""

    number: int
    places: tuple[Place, ...]
    entries: Entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """What is known of a request: `index` in what was asked for."""

    index: int
    place: Place
    cluster: int


class Asked:
    """Of one experiment: at least its last `remember` requests (and ratings)."""

    def __init__(self, remember: int, runs: Sequence[Run] = ()) -> None:
        self.remember = remember
        self.runs = list(runs)

    def add(self, number: int, batches: Sequence[tuple[Place, bytes]]) -> None:
        """`batches`: what `pack` made of the requests of a place; `number` of the run they become,
        greater than any before."""
        places = list(dict.fromkeys(_key(place) for place, _ in batches))
        for first in range(0, len(places), MAX_PLACES):
            known = places[first : first + MAX_PLACES]
            some = [
                _placed(content, known.index(_key(place)))
                for place, content in batches
                if _key(place) in known
            ]
            self._push(
                Run(
                    number=number,
                    places=tuple(Place(arm=arm, weights=dict(split)) for arm, split in known),
                    entries=_newest_of(np.concatenate(some)),
                )
            )
            number += 1

    def rate(self, number: int, digests: Entries) -> list[Met]:
        """Those of `digests` that were asked and not rated yet, each once; from now on they are.
        `number`: of the run that says so."""
        wanted, first = np.unique(digests, return_index=True)
        open_ = np.ones(len(wanted), dtype=bool)
        met: list[Met] = []
        for run in reversed(self.runs):
            at = np.searchsorted(run.entries, wanted)
            found = run.entries[np.minimum(at, len(run.entries) - 1)]
            hits = open_ & ((found & ~_CODE) == wanted)
            open_ &= ~hits
            for index in np.flatnonzero(hits).tolist():
                code = int(found[index] & _CODE)
                if code >> CLUSTER_BITS != _RATED:
                    place = run.places[code >> CLUSTER_BITS]
                    cluster = code & int(_CLUSTER)
                    met.append(Met(index=int(first[index]), place=place, cluster=cluster))
        if met:
            rated = digests[[each.index for each in met]]
            self._push(Run(number=number, places=(), entries=np.sort(_coded(rated, _RATED))))
        return met

    def _push(self, run: Run) -> None:
        runs = self.runs
        runs.append(run)
        largest = max(self.remember // PARTS, MIN_PART)
        while len(runs) > 1:
            older, newer = runs[-2:]
            if len(older.entries) >= 2 * len(newer.entries):
                break
            if len(older.entries) + len(newer.entries) > largest:
                break
            merged = _merged(older, newer)
            if merged is None:
                break
            runs[-2:] = [merged]
        total = sum(len(each.entries) for each in runs)
        while total - len(runs[0].entries) >= self.remember or len(runs) > MAX_RUNS:
            total -= len(runs.pop(0).entries)


def digests_of(ids: Sequence[str]) -> Entries:
    """48 bits of each id, in the upper bits of an entry. Equal in every process."""
    try:
        texts = np.array(ids, dtype="S")
    except UnicodeEncodeError:  # feedback for an id that no request can have had
        texts = np.array([each.encode() for each in ids], dtype="S")
    num_words = max(1, -(-texts.dtype.itemsize // 8))
    words = texts.astype(f"S{num_words * 8}").view("<u8").reshape(len(ids), num_words)
    digests = np.full(len(ids), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for column in words.T:
        # A shorter id has the same digest beside longer ones: what is behind its end is not mixed.
        digests = np.where(column == 0, digests, _mixed(digests + column))
    return digests & ~_CODE


def pack(ids: Sequence[str], clusters: bytes | bytearray) -> bytes:
    """Requests of one place, as `Asked.add` takes them."""
    return (digests_of(ids) | np.frombuffer(clusters, dtype=np.uint8)).astype("<u8").tobytes()


def digests_in(content: bytes) -> Entries:
    """What `digests_of` said of the packed requests."""
    return unpacked(content) & ~_CODE


def unpacked(content: bytes) -> Entries:
    return np.frombuffer(content, dtype="<u8").astype(np.uint64)


def _mixed(words: Entries) -> Entries:
    """Of splitmix64: every bit of the result depends on every bit of the word."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _key(place: Place) -> tuple[str, tuple[tuple[str, float], ...]]:
    return place.arm, tuple(place.weights.items())


def _coded(entries: Entries, place: int) -> Entries:
    return entries | np.uint64(place << CLUSTER_BITS)


def _placed(content: bytes, place: int) -> Entries:
    return _coded(unpacked(content), place)


def _newest_of(entries: Entries) -> Entries:
    """Each id once, as it stands first."""
    _, first = np.unique(entries >> _CODE_BITS, return_index=True)
    return entries[first]


def _merged(older: Run, newer: Run) -> Run | None:
    """None where their places would not fit into one run."""
    known = {_key(place): index for index, place in enumerate(newer.places)}
    places = list(newer.places)
    renamed = np.arange(MAX_PLACES + 1, dtype=np.uint64)
    for index, place in enumerate(older.places):
        key = _key(place)
        if key not in known:
            known[key] = len(places)
            places.append(place)
        renamed[index] = known[key]
    if len(places) > MAX_PLACES:
        return None
    before = (older.entries & _CODE) >> np.uint64(CLUSTER_BITS)
    moved = (older.entries & ~(_CODE ^ _CLUSTER)) | (renamed[before] << np.uint64(CLUSTER_BITS))
    return Run(
        number=newer.number,
        places=tuple(places),
        entries=_newest_of(np.concatenate([newer.entries, moved])),
    )
