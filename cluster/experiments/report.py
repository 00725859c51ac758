"""What a door tells the controller once a second: sums since it last told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.experiments.counts import ArmCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallied:
    """Of one experiment and the weights that its requests were split by. `callers`: arm -> digests
    of sticky keys that this door met for the first time under them. `asked`: arm -> its requests,
    as `cluster.experiments.asked.pack` says them, to be found again when they are rated."""

    experiment: str
    weights: Mapping[str, float]
    arms: Mapping[str, ArmCounts]
    callers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    asked: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a variant's engines took on one node since that started: seconds on their device (CPU or
    GPU), for so many rows."""

    rows: int = 0
    engine_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(rows=self.rows + other.rows, engine_s=self.engine_s + other.engine_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A value for one earlier request."""

    request_id: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Feedback for one experiment that a door was given in one call."""

    experiment: str
    feedback: tuple[Feedback, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOn:
    """Values of feedback for requests of which no door had told yet, and those that one did soon
    after. What is missing belongs to requests that nobody remembers: they are too long ago, failed,
    were rated before, or their door died within a second of them."""

    values: int = 0
    found: int = 0

    def __add__(self, other: HandedOn) -> HandedOn:
        return HandedOn(values=self.values + other.values, found=self.found + other.found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """A value that was counted for a request."""

    experiment: str
    arm: str
    request_id: str
    value: float
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`number` grows by one a report of the same door, so that one sent twice counts once."""

    door: str
    number: int
    tallies: tuple[Tallied, ...]
