"""Who says how many replicas: what decides in the cluster, Ray Serve's stock policy, or nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cluster.config.scaling.autoscaling import AutoscalingBudget
from cluster.control.autoscaling.fleet import Fleet, FleetLoad, Scaled
from cluster.control.autoscaling.load import Scaling, VariantLoad
from cluster.simulation.autoscaling.stock import StockConfig, StockPolicy
from cluster.simulation.service.replica import SimulatedVariant


class FleetPolicy(Protocol):
    """Asked every `period_s` with every variant's load and its calls that have no answer yet."""

    period_s: float

    def decide(
        self, now_s: float, loads: Mapping[str, VariantLoad], num_ongoing: Mapping[str, int]
    ) -> Mapping[str, int]: ...


class Ours:
    """The object that decides in the cluster, for all variants at once."""

    period_s = 1.0

    def __init__(
        self, variants: Sequence[SimulatedVariant], budget: AutoscalingBudget | None = None
    ) -> None:
        scaled = {v.name: Scaled(config=v.scaling) for v in variants if v.scaling is not None}
        self._fleet = Fleet(scaled, calls={}, budget=budget or AutoscalingBudget())
        self.scalings: list[Scaling] = []

    def decide(
        self, now_s: float, loads: Mapping[str, VariantLoad], num_ongoing: Mapping[str, int]
    ) -> Mapping[str, int]:
        found = self._fleet.decide(
            FleetLoad(at_s=now_s, window_s=self.period_s, variants=loads, ensembles={})
        )
        self.scalings += [each for each in found if each.is_change]
        return {each.variant: each.num_replicas for each in found}


class Stock:
    """One of Ray Serve's policies a variant."""

    period_s = 0.5

    def __init__(self, configs: Mapping[str, StockConfig]) -> None:
        self._policies = {name: StockPolicy(config) for name, config in configs.items()}

    def decide(
        self, now_s: float, loads: Mapping[str, VariantLoad], num_ongoing: Mapping[str, int]
    ) -> Mapping[str, int]:
        return {
            name: policy.decide(
                now_s,
                num_ongoing=num_ongoing[name],
                num_running=loads[name].num_running,
                num_target=loads[name].num_target,
            )
            for name, policy in self._policies.items()
        }


class Unchanged:
    """As many as there are."""

    period_s = 1.0

    def decide(
        self, now_s: float, loads: Mapping[str, VariantLoad], num_ongoing: Mapping[str, int]
    ) -> Mapping[str, int]:
        return {}
