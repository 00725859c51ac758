"""The simulator of the search beside the production scheduler in virtual time, on the same calls.

    python -m loadtests.placement.agreement            # a JSON line a row, about a minute

The case is AlpaServe's (`loadtests.placement.alpaserve`), its placements are the search's own. What
differs: the fast one looks into every queue when a call arrives; a production door knows only how
many requests are open at each replica, and a replica knows nothing of its neighbours on a device.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

from cluster.placement.search.fill import Filled
from cluster.simulation.cluster.fast import FastSimulator
from cluster.simulation.cluster.production import ProductionSimulator
from loadtests.placement.alpaserve import REQUEST_S, best_of, demands, published_trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """Attainments of one placement."""

    slo_scale: float
    layout: str
    fast: float
    production: float


def both(slo_scale: float) -> tuple[Both, Both]:
    """Of replication, and of the search's best."""
    wanted = demands(slo_scale)
    trace = published_trace(wanted)
    fast = FastSimulator(trace, request_s=REQUEST_S)

    def beside(filled: Filled) -> Both:
        production = ProductionSimulator(trace, lambda candidate: filled.cuts, request_s=REQUEST_S)
        return Both(
            slo_scale=slo_scale,
            layout=filled.layout.name,
            fast=filled.found.attainment,
            production=production(filled.candidate).attainment,
        )

    replication, best = best_of(wanted, fast, has_mixed_shapes=False)
    return beside(replication), beside(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scales", type=float, nargs="*", default=[2.0, 3.0, 5.0, 10.0])
    for scale in parser.parse_args().scales:
        for found in both(scale):
            print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main()
