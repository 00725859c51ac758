"""What is known of a running experiment: all of it survives the controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from cluster.config.experiment import ExperimentConfig
from cluster.experiments.counts import ArmCounts, Stratum, totals
from cluster.experiments.judge import Verdict

Status = Literal["running", "held", "rolled_back", "promoted"]

MAX_STRATA = 32
"""Older ones are given up: a day of hourly changes is remembered."""
MAX_BANDIT_STRATA = 4
"""A bandit makes one an update and compares none with another: its sums are enough. These are for
what doors tell late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentState:
    """`section`: digest of the configuration's section that it runs under. `held`: somebody set the
    weights by hand, so that no canary step changes them. `step` is the canary's; `since_s`: when
    the present weights began (Unix time). `rewards` are the bandit's, discounted, and `paid` what
    is in them, undiscounted. `forgotten`: the sums of strata that were given up."""

    section: str
    weights: Mapping[str, float]
    status: Status = "running"
    verdict: Verdict = "keep_going"
    reason: str = ""
    step: int = 0
    started_s: float
    since_s: float
    strata: tuple[Stratum, ...]
    peaks: Mapping[str, float] = field(default_factory=dict)
    rewards: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    paid: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    forgotten: Mapping[str, ArmCounts] = field(default_factory=dict)

    def counted(
        self, arms: Mapping[str, ArmCounts], weights: Mapping[str, float]
    ) -> ExperimentState:
        """With more counts, of requests that were split by `weights`. Late ones of weights that are
        forgotten by now only add to what is shown, and to a bandit's rewards."""
        for index in range(len(self.strata) - 1, -1, -1):
            if self.strata[index].weights == weights:
                strata = list(self.strata)
                strata[index] = strata[index].plus(arms)
                return replace(self, strata=tuple(strata))
        if not self.forgotten:
            return self
        return replace(self, forgotten=_plus(self.forgotten, arms))

    def with_weights(
        self, weights: Mapping[str, float], at_s: float, *, is_new_stratum: bool = False
    ) -> ExperimentState:
        """Weights that come back continue their stratum, unless it is to be a new one."""
        weights = dict(weights)
        again = [each for each in self.strata if dict(each.weights) == weights]
        if is_new_stratum or not again:
            strata = [*self.strata, Stratum(weights=weights)]
        else:
            strata = [each for each in self.strata if dict(each.weights) != weights] + again
        forgotten = self.forgotten
        limit = MAX_BANDIT_STRATA if is_new_stratum else MAX_STRATA
        for given_up in strata[:-limit]:
            every = {arm: given_up.of(arm) for arm in (*given_up.weights, *given_up.arms)}
            forgotten = _plus(forgotten, every)
        return replace(
            self,
            weights=weights,
            since_s=at_s,
            strata=tuple(strata[-limit:]),
            forgotten=forgotten,
        )

    def total(self, arm: str) -> ArmCounts:
        """Since it began: for showing, not for comparing."""
        return totals(self.strata, arm) + self.forgotten.get(arm, ArmCounts())

    @property
    def now(self) -> Stratum:
        return self.strata[-1]


def begin(config: ExperimentConfig, section: str, at_s: float) -> ExperimentState:
    weights = config.first_weights()
    return ExperimentState(
        section=section,
        weights=weights,
        started_s=at_s,
        since_s=at_s,
        strata=(Stratum(weights=weights),),
    )


def _plus(sums: Mapping[str, ArmCounts], more: Mapping[str, ArmCounts]) -> Mapping[str, ArmCounts]:
    return {**sums, **{name: sums.get(name, ArmCounts()) + each for name, each in more.items()}}
