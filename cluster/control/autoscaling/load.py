"""What is known of a variant's load when its number of replicas is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantLoad:
    """What happened since the last look, and what is now. Times are on one clock that only rises.

    `num_arrived`: requests that came in the last `window_s`; `num_waiting`: those that no replica
    has begun; `num_in_time` of `num_answered` were answered within the objective. `busy_s`: engine
    seconds of all replicas in the window, for `num_served` requests; None where nothing told them.
    `num_target`: what was asked for last; `num_running` of these answer. `memory_bytes`: what the
    largest replica holds; 0 while none tells. `num_rows`: of `num_served`. `batch_s`: rows -> what
    a batch of so many takes, by the slowest replica; empty where nothing is batched.
    """

    at_s: float
    window_s: float
    num_arrived: int
    num_waiting: int
    num_running: int
    num_target: int
    num_answered: int = 0
    num_in_time: int = 0
    busy_s: float | None = None
    num_served: int = 0
    num_rows: int = 0
    batch_s: Mapping[int, float] = field(default_factory=dict)
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many replicas a variant is to have, and a sentence that says why.

    `wanted`: before delays and bounds. `rate`: requests a second that are provided for.
    """

    variant: str
    at_s: float
    num_before: int
    num_replicas: int
    reason: str
    wanted: int = 0
    rate: float = 0.0
    service_s: float = 0.0
    is_guard: bool = False

    @property
    def is_change(self) -> bool:
        return self.num_replicas != self.num_before
