"""Ours against Ray Serve's policy, on the same arrivals. Everything here is simulated."""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass

from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.simulation.autoscaling import traces
from cluster.simulation.autoscaling.replicas import (
    OurPolicy,
    RaysPolicy,
    Replicas,
    Result,
    Workload,
)
from cluster.simulation.autoscaling.stock import StockConfig

SERVICE_S = 0.1
STARTUP_S = 10.0
SLO_S = 0.5
MAX_REPLICAS = 20
DAY_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """`counts_from_s`: what comes before is for learning."""

    name: str
    arrivals: list[float]
    season_s: float = 0.0
    counts_from_s: float = 0.0


def all_traces(seed: int) -> tuple[Trace, ...]:
    return (
        Trace(name="step", arrivals=traces.step(seed, low=5, high=60, at_s=300, until_s=2700)),
        Trace(
            name="daily",
            arrivals=traces.daily(seed, low=3, high=60, day_s=DAY_S, days=4),
            season_s=DAY_S,
            counts_from_s=DAY_S,
        ),
        Trace(name="bursty", arrivals=traces.bursty(seed, rate=25, until_s=3600)),
    )


def simulate(trace: Trace, policy: str, seed: int) -> Result:
    """`policy`: ours; rays (Ray Serve's defaults); tuned (Ray's with short delays)."""
    draw = random.Random(seed + 1)
    times = [SERVICE_S * draw.uniform(0.8, 1.2) for _ in trace.arrivals]
    workload = Workload(
        arrivals=trace.arrivals,
        service_s=times.__getitem__,
        startup_s=STARTUP_S,
        slo_s=SLO_S,
    )
    replicas = Replicas(workload, num_first=1, counts_from_s=trace.counts_from_s)
    match policy:
        case "ours":
            config = AutoscalingConfig(
                max_replicas=MAX_REPLICAS,
                slo_ms=SLO_S * 1e3,
                startup_s=STARTUP_S,
                season_s=trace.season_s,
            )
            return replicas.run(OurPolicy(config))
        case "rays":
            return replicas.run(RaysPolicy(StockConfig(max_replicas=MAX_REPLICAS)))
        case "tuned":
            stock = StockConfig(
                max_replicas=MAX_REPLICAS,
                look_back_period_s=2,
                upscale_delay_s=0,
                downscale_delay_s=60,
            )
            return replicas.run(RaysPolicy(stock))
    raise ValueError(policy)


def main() -> None:
    """`python -m cluster.simulation.autoscaling.compare`"""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    for trace in all_traces(seed):
        for policy in ("rays", "tuned", "ours"):
            found = simulate(trace, policy, seed)
            told = {
                "trace": trace.name,
                "policy": policy,
                "requests": found.num_requests,
                "missed": found.num_missed,
                "missed_share": round(found.miss_share, 4),
                "replica_seconds": round(found.replica_s),
                "most_replicas": found.most_replicas,
            }
            print(json.dumps(told))


if __name__ == "__main__":
    main()
