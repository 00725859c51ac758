"""What the autoscaler is told of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.config.scaling.autoscaling import AutoscalingBudget
from cluster.config.squadron import SquadronConfig
from cluster.control.autoscaling.fleet import Scaled
from cluster.routing.ensembles.calls import calls_per_request
from cluster.routing.table import EnsembleRoute, RoutingTable


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingSetup:
    """`calls`: ensemble -> variant -> calls a request; `rows_at_once`: what a replica computes
    together; `slo_s`: when an answer is late. Only of autoscaled variants."""

    generation: int
    variants: Mapping[str, Scaled]
    calls: Mapping[str, Mapping[str, float]]
    rows_at_once: Mapping[str, int]
    budget: AutoscalingBudget

    @property
    def slo_s(self) -> Mapping[str, float]:
        return {name: each.config.slo_ms / 1e3 for name, each in self.variants.items()}


def autoscaling_setup(
    config: SquadronConfig, table: RoutingTable, generation: int
) -> AutoscalingSetup | None:
    """None when no variant is autoscaled."""
    scaled = {
        name: Scaled(config=variant.autoscaling, memory_bytes=variant.resources.memory_bytes or 0)
        for name, variant in config.variants.items()
        if variant.autoscaling is not None
    }
    if not scaled:
        return None
    ensembles = [name for name, r in table.routes.items() if isinstance(r, EnsembleRoute)]
    calls = {name: calls_per_request(table, name) for name in ensembles}
    return AutoscalingSetup(
        generation=generation,
        variants=scaled,
        calls={name: each for name, each in calls.items() if each.keys() & scaled.keys()},
        rows_at_once={name: config.variants[name].batching.max_batch_size for name in scaled},
        budget=config.autoscaling,
    )
