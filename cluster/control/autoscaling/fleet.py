"""All autoscaled variants together: ensembles as one, within what they may cost and hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cluster.config.scaling.autoscaling import AutoscalingBudget, AutoscalingConfig
from cluster.control.autoscaling.budget import Standing, hold
from cluster.control.autoscaling.forecast import ForecastState, RateForecast, SeasonSeen
from cluster.control.autoscaling.load import Scaling, VariantLoad
from cluster.control.autoscaling.variant import ScalerState, VariantScaler


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """One variant under autoscaling. `memory_bytes`: of one replica, as configured (0: it is not);
    `assumed_bytes`: what it is taken to hold until one was seen."""

    config: AutoscalingConfig
    memory_bytes: int = 0
    assumed_bytes: int = 0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """All that the next decision depends on, but for its load: what is configured and what was
    learned. `variants` and `scalers` are of the same names, `calls` and `ensembles` too."""

    variants: Mapping[str, Scaled]
    calls: Mapping[str, Mapping[str, float]]
    budget: AutoscalingBudget
    phase_s: float
    scalers: Mapping[str, ScalerState]
    ensembles: Mapping[str, ForecastState]
    memory_bytes: Mapping[str, int]


class Fleet:
    """Decides for every variant at once. `calls`: ensemble -> variant -> calls a request makes.
    `phase_s`: what to add to the times of its loads for Unix time, where seasons are to be found
    again by another process.

    The same object decides in the cluster and in the simulator.
    """

    def __init__(
        self,
        variants: Mapping[str, Scaled],
        *,
        calls: Mapping[str, Mapping[str, float]],
        budget: AutoscalingBudget,
        phase_s: float = 0.0,
    ) -> None:
        self._phase_s = phase_s
        self._remembered: Mapping[str, SeasonSeen] = {}
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
        self._remembered = {**self._remembered, **self.seasons()}
        before, self._variants = self._variants, dict(variants)
        known = {
            n for n, each in variants.items() if n in before and before[n].config == each.config
        }
        self._scalers = {
            name: self._scalers[name]
            if name in known
            else VariantScaler(name, each.config, phase_s=self._phase_s)
            for name, each in variants.items()
        }
        self._ensembles = {
            name: self._ensembles[name]
            if name in self._ensembles and calls[name] == self._calls[name]
            else _forecast_of(calls[name], variants, self._phase_s)
            for name in calls
        }
        self._budget, self._calls = budget, calls
        self.remember(self._remembered)

    def state(self) -> FleetState:
        """What the next decision comes of; for `restored`."""
        return FleetState(
            variants=dict(self._variants),
            calls=self._calls,
            budget=self._budget,
            phase_s=self._phase_s,
            scalers={name: each.state() for name, each in self._scalers.items()},
            ensembles={name: each.state() for name, each in self._ensembles.items()},
            memory_bytes=dict(self._memory_bytes),
        )

    def seasons(self) -> dict[str, SeasonSeen]:
        """What was learned of what repeats; the rest is learned again in minutes."""
        return {
            name: season
            for name, forecast in self._forecasts().items()
            if (season := forecast.season()) is not None
        }

    def remember(self, seasons: Mapping[str, SeasonSeen]) -> None:
        """Of an earlier process; whoever has seen something itself knows better."""
        self._remembered = dict(seasons)
        for name, forecast in self._forecasts().items():
            if name in seasons:
                forecast.remember(seasons[name])

    def restore(self, state: FleetState) -> None:
        """What was learned, in place of what it has learned itself."""
        for name, scaler in state.scalers.items():
            self._scalers[name].restore(scaler)
        for name, forecast in state.ensembles.items():
            self._ensembles[name].restore(forecast)
        self._memory_bytes = dict(state.memory_bytes)

    def _forecasts(self) -> dict[str, RateForecast]:
        of_variants = {f"variant {n}": each.forecast for n, each in self._scalers.items()}
        return of_variants | {f"ensemble {n}": each for n, each in self._ensembles.items()}

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
            load,
            limit=self._budget.max_cost,
            size=lambda name: self._variants[name].config.cost,
            key="autoscaling.max_cost",
        )
        found = self._within(
            found,
            load,
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
        """What the configuration says, else what a replica was last seen to hold, else what its
        files let expect: nothing at all would let any number of them start."""
        each = self._variants[name]
        return each.memory_bytes or self._memory_bytes.get(name, 0) or each.assumed_bytes

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
        load: FleetLoad,
        *,
        limit: float | None,
        size: Callable[[str], float],
        key: str,
    ) -> dict[str, Scaling]:
        if limit is None:
            return found
        standings = {}
        for name in found:
            scaler = self._scalers[name]
            standings[name] = Standing(
                size=size(name),
                min_replicas=self._variants[name].config.min_replicas,
                rested_s=load.at_s - (scaler.last_arrival_s or 0.0),
                startup_s=scaler.startup_s,
            )
        return hold(found, standings, limit=limit, key=key)


def restored(state: FleetState) -> Fleet:
    """A fleet that decides as the one that had this state. Models that it does not serve now are
    not remembered: they do not count for its next decision."""
    fleet = Fleet(state.variants, calls=state.calls, budget=state.budget, phase_s=state.phase_s)
    fleet.restore(state)
    return fleet


def _forecast_of(
    calls: Mapping[str, float], variants: Mapping[str, Scaled], phase_s: float
) -> RateForecast:
    """With the settings of its first autoscaled member."""
    config = next((variants[v].config for v in calls if v in variants), AutoscalingConfig())
    return RateForecast(
        look_back_s=config.look_back_period_s,
        season_s=config.season_s,
        quantile=config.forecast_quantile,
        phase_s=phase_s,
    )
