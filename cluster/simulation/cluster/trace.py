"""Calls of many models as the demand has them: the planner's traffic, in one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cluster.placement.search.facts import Demand


@dataclass(frozen=True, kw_only=True)
class Trace:
    """`times_s` rise; `models` are indices of the demands; `slo_s` is each call's."""

    times_s: NDArray[np.float64]
    models: NDArray[np.int64]
    slo_s: NDArray[np.float64]
    num_models: int

    def __len__(self) -> int:
        return len(self.times_s)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Calls of each model."""
        return tuple(np.bincount(self.models, minlength=self.num_models).tolist())

    @cached_property
    def calls(self) -> list[tuple[float, int, float]]:
        """(time, model, SLO) of each."""
        return list(
            zip(self.times_s.tolist(), self.models.tolist(), self.slo_s.tolist(), strict=True)
        )


def gamma_times(
    rate_per_s: float, burstiness_cv: float, seconds: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Times in [0, seconds) whose gaps are gamma distributed. A `burstiness_cv` of 1 is Poisson, 0
    is a clock. Source: the arrival process of AlpaServe and of Clockwork's study before it."""
    if rate_per_s <= 0:
        return np.empty(0)
    if burstiness_cv == 0:
        return np.arange(0.0, seconds, 1.0 / rate_per_s)
    shape = burstiness_cv**-2
    chunk = max(16, int(rate_per_s * seconds * 1.2))
    parts: list[NDArray[np.float64]] = []
    now_s = 0.0
    while now_s < seconds:
        times = now_s + random.gamma(shape, 1.0 / (rate_per_s * shape), chunk).cumsum()
        parts.append(times)
        now_s = float(times[-1])
    times = np.concatenate(parts)
    return times[times < seconds]


def draw_trace(demands: Sequence[Demand], *, seconds: float, random: np.random.Generator) -> Trace:
    """Every model's calls for so many seconds."""
    each = [gamma_times(d.rate_per_s, d.burstiness_cv, seconds, random) for d in demands]
    return merge(each, [d.slo_s for d in demands])


def merge(times_s: Sequence[NDArray[np.float64]], slo_s: Sequence[float]) -> Trace:
    """The calls of every model in the order of time."""
    every = np.concatenate(times_s) if times_s else np.empty(0)
    models = np.repeat(np.arange(len(times_s)), [len(times) for times in times_s])
    order = np.argsort(every, kind="stable")
    return Trace(
        times_s=every[order],
        models=models[order],
        slo_s=np.asarray(slo_s, dtype=np.float64)[models[order]],
        num_models=len(times_s),
    )
