"""What the autoscaler is told of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.config.scaling.autoscaling import AutoscalingBudget
from cluster.config.squadron import SquadronConfig
from cluster.control.autoscaling.fleet import Scaled
from cluster.routing.ensembles.calls import calls_per_request
from cluster.routing.table import EnsembleRoute, RoutingTable, VariantRoute

PROCESS_BYTES = 150 * 2**20
"""Of a replica's process before it holds a model: 145 MiB seen."""


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


def autoscaling_of(config: SquadronConfig) -> AutoscalingBudget | None:
    """None when no variant can ever be autoscaled."""
    is_scaled = any(variant.autoscaling is not None for variant in config.variants.values())
    return config.autoscaling if is_scaled or config.autoscaling.loaded is not None else None


def autoscaling_setup(
    table: RoutingTable, budget: AutoscalingBudget, generation: int
) -> AutoscalingSetup:
    """Of the models that are served now."""
    routes = table.routes.items()
    scaled = {
        name: Scaled(
            config=route.scaling,
            memory_bytes=route.memory_bytes,
            assumed_bytes=PROCESS_BYTES + route.facts.artefact_bytes,
        )
        for name, route in routes
        if isinstance(route, VariantRoute) and route.scaling is not None
    }
    ensembles = [name for name, route in routes if isinstance(route, EnsembleRoute)]
    calls = {name: calls_per_request(table, name) for name in ensembles}
    return AutoscalingSetup(
        generation=generation,
        variants=scaled,
        calls={name: each for name, each in calls.items() if each.keys() & scaled.keys()},
        rows_at_once={
            name: route.rows_at_once
            for name, route in routes
            if isinstance(route, VariantRoute) and name in scaled
        },
        budget=budget,
    )
