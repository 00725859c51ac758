"""How often a request to a model calls each variant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from cluster.config.ensemble import first_calls
from cluster.config.ensembles.calls import ModelStep, SplitStep, SwitchStep
from cluster.config.ensembles.combining import CombineStep
from cluster.routing.table import EnsembleRoute, ExperimentRoute, RoutingTable


def calls_per_request(table: RoutingTable, model: str) -> Mapping[str, float]:
    """Variant -> mean calls; of a switch, as if every request went each of its ways (its shares are
    not known before), and without fallbacks."""
    found: defaultdict[str, float] = defaultdict(float)
    match table.known(model):
        case ExperimentRoute(arms=arms):
            total = sum(arm.weight for arm in arms)
            parts = [(arm.variant, arm.weight / total) for arm in arms]
        case EnsembleRoute(plan=plan):
            parts = []
            for planned in plan.steps:
                match planned.step:
                    case SplitStep(split=split):
                        total = sum(split.values())
                        parts += [(name, weight / total) for name, weight in split.items()]
                    case ModelStep() | SwitchStep() as step:
                        parts += [(name, 1.0) for name in first_calls(step)]
                    case CombineStep(model=name) if name:
                        parts.append((name, 1.0))
        case _:
            return {model: 1.0}
    for name, share in parts:
        for variant, calls in calls_per_request(table, name).items():
            found[variant] += share * calls
    return dict(found)
