"""Variants that share one model's traffic."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cluster.config.section import Section

Goal = Literal["latency", "errors", "quality"]


class AnalysisConfig(Section):
    """How the arms are compared. Effects are what one wants to find: a share of the latency, and a
    difference of the quality. `slo_ms`: what is slower counts as slow, also for a bandit."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    sample_ratio_alpha: float = Field(default=0.001, gt=0, lt=0.5)
    goal: Goal = "latency"
    min_requests: int = Field(default=100, ge=20)
    latency_effect: float = Field(default=0.1, gt=0, lt=10)
    quality_effect: float = Field(default=0.03, gt=0)
    slo_ms: float | None = Field(default=None, gt=0)


class GuardrailsConfig(Section):
    """What an arm may cost against the control; None: not looked at. `latency`, `errors` and `slow`
    are relative (0.05: 5 % more), `quality` is absolute. An arm that costs more is taken out of the
    traffic when `roll_back` says so. `alpha` is shared among the guardrails and arms."""

    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    latency: float | None = Field(default=0.05, ge=0)
    errors: float | None = Field(default=0.1, ge=0)
    slow: float | None = Field(default=0.1, ge=0)
    quality: float | None = Field(default=0.0, ge=0)
    roll_back: bool = True


class CanaryConfig(Section):
    """The second arm's share in per cent, step by step: on to the next after `step_s` seconds with
    at least `step_requests` requests of its own and no guardrail broken.

    `control_share`: what the control keeps, in per cent, while a step of (nearly) 100 is watched:
    against nothing an arm cannot be compared, and so not be taken back. After that step the arm
    has everything. 0: the last step compares with nothing and moves on by its time.
    """

    steps: tuple[float, ...] = (1, 5, 25, 50, 100)
    step_s: float = Field(default=60, gt=0)
    step_requests: int = Field(default=200, ge=1)
    control_share: float = Field(default=5, ge=0, le=50)

    @field_validator("steps")
    @classmethod
    def _steps_grow(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        grows = all(a < b for a, b in pairwise(steps))
        if not steps or not grows or steps[0] <= 0 or steps[-1] > 100:
            raise ValueError("steps are growing shares in per cent, above 0 and at most 100")
        return steps

    def watched_share(self, step: int) -> float:
        """The arm's share while that step is watched, in per cent; never below the step before."""
        before = self.steps[step - 1] if step else 0.0
        return min(self.steps[step], max(100 - self.control_share, before))


class BanditConfig(Section):
    """Thompson sampling: weights follow the evidence, none falls below `floor` of the traffic.
    `reward`: answered in time without error, or the feedback's value (0 to 1)."""

    floor: float = Field(default=0.05, gt=0, le=0.5)
    reward: Literal["service", "quality"] = "service"
    update_s: float = Field(default=10, gt=0)
    discount: float = Field(default=0.99, gt=0, le=1)


class MirrorConfig(Section):
    """Copies of `share` of the requests go to `variants` as well; their answers are compared with
    the one given and thrown away. A copy is dropped when its variant is busy."""

    variants: tuple[str, ...] = Field(min_length=1)
    share: float = Field(default=1.0, gt=0, le=1)


class MatchRule(Section):
    """Requests whose header has this value go to `arm`; the first rule that fits counts."""

    header: str = Field(min_length=1)
    value: str
    arm: str

    @field_validator("header")
    @classmethod
    def _lower(cls, header: str) -> str:
        return header.lower()


class FeedbackConfig(Section):
    """`remember`: of how many of the last requests, at all doors, the arm is known at least when
    feedback comes; 8 bytes each."""

    remember: int = Field(default=1_000_000, ge=1, le=10_000_000)


class ExperimentConfig(Section):
    """`split` maps variants to weights (any positive scale; 0 receives nothing, but stays loaded).

    Requests that carry `sticky_header` always meet the same variant; the others are drawn. The
    first variant is the control, against which the others are judged. Without `guardrails`,
    `canary` or `bandit` the arms are measured and judged, and nothing is changed.
    """

    split: dict[str, float] = Field(min_length=1)
    sticky_header: str = "x-squadron-user"
    match: tuple[MatchRule, ...] = ()
    mirror: MirrorConfig | None = None
    analysis: AnalysisConfig = AnalysisConfig()
    guardrails: GuardrailsConfig | None = None
    canary: CanaryConfig | None = None
    bandit: BanditConfig | None = None
    feedback: FeedbackConfig = FeedbackConfig()

    @property
    def control(self) -> str:
        return next(iter(self.split))

    @property
    def rails(self) -> GuardrailsConfig:
        """A canary without guardrails of its own has the usual ones."""
        return self.guardrails or GuardrailsConfig()

    def first_weights(self) -> dict[str, float]:
        """What the traffic begins with: the split, or the canary's first step."""
        if self.canary is None:
            return dict(self.split)
        return self.canary_weights(0)

    def canary_weights(self, step: int) -> dict[str, float]:
        assert self.canary is not None
        share = self.canary.watched_share(step)
        control, arm = self.split
        return {control: 100 - share, arm: share}

    def promoted_weights(self) -> dict[str, float]:
        """After the canary's last step: all of it where that step is 100."""
        assert self.canary is not None
        share = self.canary.steps[-1]
        control, arm = self.split
        return {control: 100 - share, arm: share}

    @model_validator(mode="after")
    def _weights_make_sense(self) -> Self:
        for name, weight in self.split.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"split.{name} is {weight}; a weight is a number >= 0")
        if sum(self.split.values()) <= 0:
            raise ValueError("every weight in split is 0; at least one must be above 0")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.canary is not None and self.bandit is not None:
            raise ValueError("canary and bandit both set the weights; allowed: one of them")
        if self.canary is not None and len(self.split) != 2:
            raise ValueError(f"a canary has 2 variants in split, got {len(self.split)}")
        if self.bandit is not None and self.bandit.floor * len(self.split) > 1:
            raise ValueError(
                f"bandit.floor is {self.bandit.floor}; for {len(self.split)} arms at most "
                f"{1 / len(self.split):g}"
            )
        for index, rule in enumerate(self.match):
            if rule.arm not in self.split:
                raise ValueError(
                    f"match.{index}.arm is {rule.arm!r}; allowed: {', '.join(self.split)}"
                )
        return self
