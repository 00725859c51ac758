"""What a door tells the controller once a second: sums since it last told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.experiments.counts import ArmCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallied:
    """Of one experiment and the weights that its requests were split by. `callers`: arm -> digests
    of sticky keys that this door met for the first time under them."""

    experiment: str
    weights: Mapping[str, float]
    arms: Mapping[str, ArmCounts]
    callers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


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
class Rated:
    """A value that was counted for a request, and what the door knows of that."""

    experiment: str
    arm: str
    request_id: str
    value: float
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`number` grows by one a report of the same door, so that one sent twice counts once.
    `rated`: each value of feedback, where they are kept one by one."""

    door: str
    number: int
    tallies: tuple[Tallied, ...]
    rated: tuple[Rated, ...] = ()
