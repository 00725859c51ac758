"""How many replicas one variant is to have: forecast, capacity, guard, delays."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.control.autoscaling.capacity import (
    FullBatch,
    full_batch,
    replicas_for,
    replicas_for_batches,
)
from cluster.control.autoscaling.forecast import ForecastState, RateForecast
from cluster.control.autoscaling.load import Scaling, VariantLoad

ATTAINMENT_S = 30.0
MIN_ANSWERS = 20
"""Fewer answers than these say nothing of a share of 99 %."""

MAX_VARIABILITY = 12.0
SERVICE_SHARE = 0.2
"""How much of a new measurement the service time takes over; a replica's batches change it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    num: int
    reason: str
    rate: float = 0.0
    is_guard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalerState:
    """All that a scaler has learned; as its fields are named. None: never."""

    forecast: ForecastState
    service_s: float | None
    rows: float
    batch: FullBatch | None
    startup_s: float
    last_arrival_s: float | None
    wishes: tuple[tuple[float, int], ...]
    answers: tuple[tuple[float, int, int], ...]
    began_s: float | None
    raised: tuple[tuple[float, int], ...]
    mended_s: float | None


class VariantScaler:
    """Remembers what it has seen of one variant. `decide` is asked about once a second.

    Without a measured service time the number stays, but for the first request after zero and for
    a variant that nobody asks any more.
    """

    def __init__(self, variant: str, config: AutoscalingConfig, *, phase_s: float = 0.0) -> None:
        self._variant = variant
        self._config = config
        self.forecast = RateForecast(
            look_back_s=config.look_back_period_s,
            season_s=config.season_s,
            quantile=config.forecast_quantile,
            phase_s=phase_s,
        )
        self.service_s: float | None = None
        self._rows = 1.0
        self._batch: FullBatch | None = None
        self.startup_s = config.startup_s
        self.last_arrival_s: float | None = None
        self._wishes: deque[tuple[float, int]] = deque()
        self._answers: deque[tuple[float, int, int]] = deque()
        self._began_s: float | None = None
        self._raised: deque[tuple[float, int]] = deque()
        self._mended_s: float | None = None

    def state(self) -> ScalerState:
        """For `restore` of a scaler with the same configuration."""
        return ScalerState(
            forecast=self.forecast.state(),
            service_s=self.service_s,
            rows=self._rows,
            batch=self._batch,
            startup_s=self.startup_s,
            last_arrival_s=self.last_arrival_s,
            wishes=tuple(self._wishes),
            answers=tuple(self._answers),
            began_s=self._began_s,
            raised=tuple(self._raised),
            mended_s=self._mended_s,
        )

    def restore(self, state: ScalerState) -> None:
        """It decides as the one that had this `state`."""
        self.forecast.restore(state.forecast)
        self.service_s, self.startup_s = state.service_s, state.startup_s
        self._rows, self._batch = state.rows, state.batch
        self.last_arrival_s = state.last_arrival_s
        self._wishes, self._answers = deque(state.wishes), deque(state.answers)
        self._began_s, self._raised = state.began_s, deque(state.raised)
        self._mended_s = state.mended_s

    def decide(self, load: VariantLoad, *, rate_at_least: float = 0.0) -> Scaling:
        """`rate_at_least`: what ensembles are expected to ask of it. What comes of it is to be
        `granted`."""
        self._observe(load)
        wish = self._wish(load, rate_at_least)
        num, why = self._after_delays(load, wish)
        return Scaling(
            variant=self._variant,
            at_s=load.at_s,
            num_before=load.num_target,
            num_replicas=num,
            reason=why,
            wanted=wish.num,
            rate=wish.rate,
            service_s=self.service_s or 0.0,
            is_guard=wish.is_guard,
        )

    def granted(self, at_s: float, num: int, load: VariantLoad) -> None:
        """So many will be there, of those that it asked for: how long a start takes is learned."""
        # What was taken back before it ran tells nothing of it.
        self._raised = deque(each for each in self._raised if each[1] <= num)
        if num > load.num_target:
            self._raised.append((at_s, num))

    def _observe(self, load: VariantLoad) -> None:
        now_s = load.at_s
        if self._began_s is None:
            self._began_s = now_s
        self.forecast.observe(now_s, load.window_s, load.num_arrived)
        if load.num_arrived or load.num_waiting or self.last_arrival_s is None:
            self.last_arrival_s = now_s
        if load.busy_s is not None and load.num_served > 0:
            seen_s = load.busy_s / load.num_served
            known_s = self.service_s
            self.service_s = (
                seen_s if known_s is None else known_s + SERVICE_SHARE * (seen_s - known_s)
            )
            self._rows += SERVICE_SHARE * (max(1.0, load.num_rows / load.num_served) - self._rows)
        if load.batch_s:
            # One batch may be waited for, and then there is the own one.
            self._batch = full_batch(load.batch_s, self._config.slo_ms / 2e3)
        # How long those took to start that have been asked for.
        while self._raised and load.num_running >= self._raised[0][1]:
            at_s, _ = self._raised.popleft()
            self.startup_s += 0.3 * (max(now_s - at_s, 0.1) - self.startup_s)
        self._answers.append((now_s, load.num_answered, load.num_in_time))
        while self._answers[0][0] < now_s - ATTAINMENT_S:
            self._answers.popleft()

    def _wish(self, load: VariantLoad, rate_at_least: float) -> _Wish:
        config = self._config
        if load.num_target == 0 and (load.num_waiting or load.num_arrived):
            text = f"{load.num_waiting or load.num_arrived} requests are held and no replica runs"
            return _Wish(num=1, reason=text, is_guard=True)
        service_s = self.service_s
        if service_s is None and config.min_replicas == 0 and self._may_be_zero(load.at_s):
            # A replica woken for a few requests may have answered them before it was first heard.
            text = f"nobody has asked for {config.to_zero_delay_s:g} s"
            return _Wish(num=0, reason=text)
        if service_s is None:
            return _Wish(num=load.num_target, reason="its service time is not measured yet")
        ahead_s = self.startup_s + load.window_s
        forecast = self.forecast.ahead(load.at_s, ahead_s)
        rate, source = forecast.rate, forecast.source
        if rate_at_least > rate:
            rate, source = rate_at_least, "its ensembles"
        num, each_s, how = self._enough(rate, service_s)
        wish = _Wish(
            num=num,
            rate=rate,
            reason=f"{rate:.1f} requests/s expected in {ahead_s:.0f} s ({source}) at "
            f"{how}: {num} keep {config.slo_share:.1%} below {config.slo_ms:g} ms",
        )
        return self._guarded(load, wish, each_s, config.slo_ms / 1e3)

    def _enough(self, rate: float, service_s: float) -> tuple[int, float, str]:
        """How many replicas, what a request takes in one of them when they are that few, and how it
        is said. `service_s`: as measured, in batches as small as they happened to be: with many
        replicas they never grow, so fewer are looked at with batches as large as they may be."""
        config = self._config
        dispersion = self.forecast.dispersion()
        variability = min(MAX_VARIABILITY, (dispersion + 0.5) / 2)
        num = replicas_for(
            rate=rate,
            service_s=service_s,
            wait_s=max(0.0, config.slo_ms / 1e3 - 1.5 * service_s),
            miss_share=1 - config.slo_share,
            variability=max(0.5, variability),
        )
        batch = self._batch
        if batch is not None:
            fewer = replicas_for_batches(
                rate=rate * self._rows,
                batch=batch,
                miss_share=1 - config.slo_share,
                dispersion=min(2 * MAX_VARIABILITY, dispersion) * self._rows,
            )
            if fewer <= num:
                how = f"{batch.seconds * 1e3:.0f} ms a batch of {batch.rows}"
                return fewer, min(service_s, batch.row_s * self._rows), how
        return num, service_s, f"{service_s * 1e3:.0f} ms each"

    def _guarded(self, load: VariantLoad, wish: _Wish, service_s: float, slo_s: float) -> _Wish:
        """More at once when the requests that wait now cannot be in time."""
        wait_s = load.num_waiting * service_s / max(1, load.num_running)
        if wait_s > slo_s / 2:
            rate = max(wish.rate, load.num_arrived / load.window_s)
            busy = rate * service_s / 0.8
            backlog = load.num_waiting * service_s / max(self.startup_s, slo_s)
            num = max(wish.num, math.ceil(busy + backlog))
            text = (
                f"{load.num_waiting} requests wait, the last of them {wait_s:.2f} s, more than "
                f"half of {self._config.slo_ms:g} ms: {num} clear them in {self.startup_s:.0f} s"
            )
            return _Wish(num=num, rate=rate, reason=text, is_guard=True)
        answered = sum(each for _, each, _ in self._answers)
        in_time = sum(each for _, _, each in self._answers)
        is_settled = load.num_running >= load.num_target
        rest_s = max(self.startup_s, ATTAINMENT_S)
        has_waited = self._mended_s is None or load.at_s - self._mended_s > rest_s
        is_busy = wish.rate * service_s > 0.3 * load.num_running
        if answered < MIN_ANSWERS or in_time >= self._config.slo_share * answered:
            return wish
        if is_settled and has_waited and is_busy and wish.num <= load.num_target:
            self._mended_s = load.at_s
            text = (
                f"{in_time / answered:.1%} of the last {answered} answers were in time, of "
                f"{self._config.slo_share:.1%}: one replica more"
            )
            return _Wish(num=load.num_target + 1, rate=wish.rate, reason=text, is_guard=True)
        return wish

    def _after_delays(self, load: VariantLoad, wish: _Wish) -> tuple[int, str]:
        """Bounds, delays, the least step; and the sentence."""
        config, now_s, before = self._config, load.at_s, load.num_target
        self._wishes.append((now_s, wish.num))
        longest_s = max(config.downscale_delay_s, config.upscale_delay_s)
        while self._wishes[0][0] < now_s - longest_s:
            self._wishes.popleft()
        assert self._began_s is not None
        highest = max(n for at_s, n in self._wishes if at_s >= now_s - config.downscale_delay_s)
        lowest = min(n for at_s, n in self._wishes if at_s >= now_s - config.upscale_delay_s)
        # What came before it began to look is not known: it may not take away what is there.
        can_fall = now_s - self._began_s >= config.downscale_delay_s
        num, why = before, wish.reason
        if wish.num > before:
            num = wish.num if wish.is_guard else max(before, lowest)
            if num == before:
                why += f"; wanted for less than upscale_delay_s ({config.upscale_delay_s:g} s)"
        elif wish.num < before and can_fall and highest < before:
            num = highest
        elif wish.num < before:
            why += f"; {before} stay for downscale_delay_s ({config.downscale_delay_s:g} s)"
        if num == 0 and before > 0 and not self._may_be_zero(now_s):
            num = 1
            why = f"nobody has asked for less than {config.to_zero_delay_s:g} s"
        bounded = min(max(num, config.min_replicas), config.max_replicas)
        if bounded != num:
            name = "max_replicas" if bounded < num else "min_replicas"
            why += f"; {name} is {bounded}"
        step = abs(bounded - before)
        is_free = bounded > 0 and config.min_replicas <= before <= config.max_replicas
        if 0 < step < config.min_step and is_free and not wish.is_guard:
            return before, f"{why}; a step of {step} is below min_step ({config.min_step})"
        return bounded, why

    def _may_be_zero(self, now_s: float) -> bool:
        last_s = self.last_arrival_s
        return last_s is not None and now_s - last_s >= self._config.to_zero_delay_s
