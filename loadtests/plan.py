"""How long everything is measured: `--quick` to see that all works, half an hour to have figures,
the full plan (hours) to believe differences of percents."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Seconds a block, units of A B B A (two pairs each), connections and loads swept.

    `loads` and `overloads` are shares of the capacity measured in the same run.
    """

    name: str
    warm_s: float
    block_s: float
    num_units: int
    open_s: float
    sweep: tuple[int, ...]
    loads: tuple[float, ...]
    overloads: tuple[float, ...]
    soak_requests: int
    soak_settled: int


QUICK = Plan(
    name="quick",
    warm_s=0.5,
    block_s=1.0,
    num_units=2,
    open_s=3.0,
    sweep=(1, 8, 64),
    loads=(0.3, 0.5, 0.7),
    overloads=(0.7, 1.5, 3.0),
    soak_requests=60_000,
    soak_settled=20_000,
)
HALF_HOUR = Plan(
    name="half-hour",
    warm_s=1.0,
    block_s=1.2,
    num_units=2,
    open_s=8.0,
    sweep=(1, 8, 64),
    loads=(0.3, 0.5, 0.7),
    overloads=(0.7, 1.0, 1.5, 3.0),
    soak_requests=1_000_000,
    soak_settled=50_000,
)
FULL = Plan(
    name="full",
    warm_s=10.0,
    block_s=15.0,
    num_units=5,
    open_s=60.0,
    sweep=(1, 2, 4, 8, 16, 32, 64, 128),
    loads=(0.3, 0.5, 0.7, 0.8, 0.9, 1.1),
    overloads=(0.5, 0.8, 1.0, 1.5, 2.0, 3.0),
    soak_requests=1_000_000,
    soak_settled=50_000,
)
PLANS = {plan.name: plan for plan in (QUICK, HALF_HOUR, FULL)}
