"""Autoscaling where replicas batch: ours, ours without the cost of batches, Ray Serve's policy.

    python -m cluster.simulation.service.compare            # a JSON line a row, about a minute

Everything is simulated: an engine that takes 0.1 s for one row and 0.01 s for each further one, up
to 16; 10 s to start; an objective of 0.5 s, which is also each call's deadline.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace

from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.config.variant import BatchingConfig
from cluster.control.autoscaling.load import VariantLoad
from cluster.simulation.autoscaling.compare import MAX_REPLICAS, SLO_S, STARTUP_S, Trace, all_traces
from cluster.simulation.autoscaling.stock import StockConfig
from cluster.simulation.service.policies import FleetPolicy, Ours, Stock
from cluster.simulation.service.replica import SimulatedCall, SimulatedVariant
from cluster.simulation.service.service import Service, Tally

POLICIES = ("stock", "blind", "ours")


class Blind(Ours):
    """Ours, which is told nothing of batches."""

    def decide(
        self, now_s: float, loads: Mapping[str, VariantLoad], num_ongoing: Mapping[str, int]
    ) -> Mapping[str, int]:
        told = {name: replace(load, batch_s={}) for name, load in loads.items()}
        return super().decide(now_s, told, num_ongoing)


def simulate(trace: Trace, policy: str) -> Tally:
    """`policy`: one of `POLICIES`."""
    engine = SimulatedVariant(
        name="m",
        first_row_s=0.1,
        next_row_s=0.01,
        batching=BatchingConfig(max_batch_size=16),
        startup_s=STARTUP_S,
        scaling=AutoscalingConfig(
            max_replicas=MAX_REPLICAS,
            slo_ms=SLO_S * 1e3,
            startup_s=STARTUP_S,
            season_s=trace.season_s,
        ),
    )
    decides: dict[str, FleetPolicy] = {
        "stock": Stock({"m": StockConfig(max_replicas=MAX_REPLICAS)}),
        "blind": Blind([engine]),
        "ours": Ours([engine]),
    }
    calls = (SimulatedCall(arrives_s=at_s, deadline_s=SLO_S) for at_s in trace.arrivals)
    return Service([engine], slo_s=SLO_S, policy=decides[policy]).run(calls)["m"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    for trace in all_traces(seed):
        for policy in POLICIES:
            found = simulate(trace, policy)
            told = {
                "trace": trace.name,
                "policy": policy,
                "requests": found.num_calls,
                "attainment": round(found.attainment, 4),
                "refused": found.refused,
                "expired": found.expired,
                "mean_rows": round(found.mean_rows, 2),
                "replica_seconds": round(found.replica_s),
                "most_replicas": found.most_replicas,
            }
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
