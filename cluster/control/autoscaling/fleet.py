"""All autoscaled variants together: ensembles as one, within what they may cost and hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cluster.config.scaling.autoscaling import AutoscalingBudget, AutoscalingConfig
from cluster.control.autoscaling.forecast import RateForecast
from cluster.control.autoscaling.load import Scaling, VariantLoad
from cluster.control.autoscaling.variant import VariantScaler


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """One variant under autoscaling. `memory_bytes`: of one replica."""

    config: AutoscalingConfig
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLoad:
    """A look at everything. `ensembles`: requests that came to each in the last `window_s`.
    `num_cores`: of all nodes; 0: not known.

    A variant that is not in `variants` has told nothing; what it has stays.
    """

    at_s: float
    window_s: float
    variants: Mapping[str, VariantLoad]
    ensembles: Mapping[str, int]
    num_cores: int = 0


class Fleet:
    """Decides for every variant at once. `calls`: ensemble -> variant -> calls a request makes.

    The same object decides in the cluster and in the simulator.
    """

    def __init__(
        self,
        variants: Mapping[str, Scaled],
        *,
        calls: Mapping[str, Mapping[str, float]],
        budget: AutoscalingBudget,
    ) -> None:
        self._variants: dict[str, Scaled] = {}
        self._calls: Mapping[str, Mapping[str, float]] = {}
        self._scalers: dict[str, VariantScaler] = {}
        self._ensembles: dict[str, RateForecast] = {}
        self._memory_bytes: dict[str, int] = {}
        self.adopt(variants, calls=calls, budget=budget)

    def adopt(
        self,
        variants: Mapping[str, Scaled],
        *,
        calls: Mapping[str, Mapping[str, float]],
        budget: AutoscalingBudget,
    ) -> None:
        """Other models: those that go on as they were keep what was learned of them."""
        before, self._variants = self._variants, dict(variants)
        known = {
            n for n, each in variants.items() if n in before and before[n].config == each.config
        }
        self._scalers = {
            name: self._scalers[name] if name in known else VariantScaler(name, each.config)
            for name, each in variants.items()
        }
        self._ensembles = {
            name: self._ensembles[name]
            if name in self._ensembles and calls[name] == self._calls[name]
            else _forecast_of(calls[name], variants)
            for name in calls
        }
        self._budget, self._calls = budget, calls

    def decide(self, load: FleetLoad) -> tuple[Scaling, ...]:
        """A decision for each variant that told its load, each with its reason."""
        rates = self._ensemble_rates(load)
        for name, each in load.variants.items():
            self._memory_bytes[name] = each.memory_bytes or self._memory_bytes.get(name, 0)
        found = {
            name: self._scalers[name].decide(each, rate_at_least=rates.get(name, 0.0))
            for name, each in load.variants.items()
            if name in self._scalers
        }
        found = self._within(
            found,
            limit=self._budget.max_cost,
            size=lambda name: self._variants[name].config.cost,
            key="autoscaling.max_cost",
        )
        found = self._within(
            found,
            limit=self._budget.max_memory_bytes,
            size=self._size_bytes,
            key="autoscaling.max_memory_bytes",
        )
        found = self._in_turn(found, load)
        for name, scaling in found.items():
            self._scalers[name].granted(load.at_s, scaling.num_replicas, load.variants[name])
        return tuple(found.values())

    def _in_turn(self, found: dict[str, Scaling], load: FleetLoad) -> dict[str, Scaling]:
        """As many as may start at a time, the others when these run: started together on few cores,
        the first would answer as late as the last. Those that were asked for are never taken back
        for it, and who wants more always gets one."""
        limit = self._budget.max_starting or load.num_cores
        running = {name: seen.num_running for name, seen in load.variants.items()}
        starting = {name: max(0, each.num_replicas - running[name]) for name, each in found.items()}
        while limit and sum(starting.values()) > limit:
            fewer = {
                name: num
                for name, num in starting.items()
                if num > max(1, found[name].num_before - running[name])
            }
            if not fewer:
                break
            starting[max(fewer, key=fewer.__getitem__)] -= 1
        for name, num in starting.items():
            each = found[name]
            if num and running[name] + num < each.num_replicas:
                text = f"{each.reason}; {num} start now, the others after them ({limit} at a time)"
                found[name] = replace(each, num_replicas=running[name] + num, reason=text)
        return found

    def _size_bytes(self, name: str) -> int:
        """What the configuration says, else what a replica was last seen to hold."""
        return self._variants[name].memory_bytes or self._memory_bytes.get(name, 0)

    def _ensemble_rates(self, load: FleetLoad) -> dict[str, float]:
        """What ensembles will ask of each variant: so the later steps grow with the first."""
        rates: dict[str, float] = {}
        for name, forecast in self._ensembles.items():
            forecast.observe(load.at_s, load.window_s, load.ensembles.get(name, 0))
            for variant, calls in self._calls[name].items():
                scaler = self._scalers.get(variant)
                ahead_s = 0.0 if scaler is None else scaler.startup_s
                rate = forecast.ahead(load.at_s, ahead_s).rate
                rates[variant] = rates.get(variant, 0.0) + calls * rate
        return rates

    def _within(
        self,
        found: dict[str, Scaling],
        *,
        limit: float | None,
        size: Callable[[str], float],
        key: str,
    ) -> dict[str, Scaling]:
        """Take replicas away until the limit holds: whole idle variants first, least recently asked
        first, then one at a time where most room is left."""
        while limit is not None and _total(found, size) > limit:
            idle = [name for name, each in found.items() if self._can_be_evicted(name, each)]
            if idle:
                name = min(idle, key=self._last_used_s)
                text = f"evicted: {key} is {limit:g} and it was asked least recently"
                found[name] = replace(found[name], num_replicas=0, reason=text)
                continue
            spare = [
                name
                for name, each in found.items()
                if each.num_replicas > max(1, self._variants[name].config.min_replicas)
            ]
            if not spare:
                break
            name = min(spare, key=lambda name: self._load_of_the_rest(found[name]))
            each = found[name]
            reason = each.reason.partition("; held to")[0]
            found[name] = replace(
                each,
                num_replicas=each.num_replicas - 1,
                reason=f"{reason}; held to {each.num_replicas - 1} by {key} ({limit:g})",
            )
        return found

    def _can_be_evicted(self, name: str, each: Scaling) -> bool:
        is_idle = each.rate < 0.01 and not each.is_guard
        return is_idle and each.num_replicas > 0 and self._variants[name].config.min_replicas == 0

    def _last_used_s(self, name: str) -> float:
        return self._scalers[name].last_arrival_s or 0.0

    def _load_of_the_rest(self, each: Scaling) -> float:
        return each.rate * each.service_s / (each.num_replicas - 1)


def _total(found: Mapping[str, Scaling], size: Callable[[str], float]) -> float:
    return sum(each.num_replicas * size(name) for name, each in found.items())


def _forecast_of(calls: Mapping[str, float], variants: Mapping[str, Scaled]) -> RateForecast:
    """With the settings of its first autoscaled member."""
    config = next((variants[v].config for v in calls if v in variants), AutoscalingConfig())
    return RateForecast(
        look_back_s=config.look_back_period_s,
        season_s=config.season_s,
        quantile=config.forecast_quantile,
    )
