"""How many replicas of a variant run, by what is asked of it."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from cluster.config.section import Section


class AutoscalingConfig(Section):
    """Named as Ray Serve names it, where it has the same.

    `slo_ms`: an answer that takes longer misses; `slo_share` of the answers are to be in time.
    `upscale_delay_s`: how long a larger number must be wanted before it is taken (a wait of more
    than half the objective waits for nothing); `downscale_delay_s`: how long a smaller one;
    `downscale_to_zero_delay_s`: how long nobody may have asked before the last replica goes.
    `look_back_period_s`: the time over which the rate of requests is averaged. `startup_s`: from
    the decision to a replica that answers, until it was measured. `season_s`: the length of a
    period that repeats (86400: a day; 0: none). `forecast_quantile`: of what the forecast may miss,
    the share that is provided for. `min_step`: a change of fewer replicas is not worth it.
    `cost`: of one replica, in the unit of `autoscaling.max_cost`.
    """

    min_replicas: int = Field(default=1, ge=0, le=4096)
    initial_replicas: int | None = Field(default=None, ge=0, le=4096)
    max_replicas: int = Field(default=1, ge=1, le=4096)
    slo_ms: float = Field(default=1000.0, gt=0)
    slo_share: float = Field(default=0.99, gt=0, lt=1)
    upscale_delay_s: float = Field(default=0.0, ge=0)
    downscale_delay_s: float = Field(default=60.0, ge=0)
    downscale_to_zero_delay_s: float | None = Field(default=None, ge=0)
    look_back_period_s: float = Field(default=10.0, ge=1, le=3600)
    startup_s: float = Field(default=10.0, gt=0)
    season_s: float = Field(default=0.0, ge=0)
    forecast_quantile: float = Field(default=0.95, gt=0.5, lt=1)
    min_step: int = Field(default=1, ge=1)
    cost: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas}, below min_replicas ({self.min_replicas})"
            )
        first = self.first_replicas
        if not self.min_replicas <= first <= self.max_replicas:
            raise ValueError(
                f"initial_replicas is {first}, not between min_replicas ({self.min_replicas}) and "
                f"max_replicas ({self.max_replicas})"
            )
        if 0 < self.season_s < 60:
            raise ValueError(f"season_s is {self.season_s:g}; a season has 60 s or more, 0 is none")
        return self

    @property
    def first_replicas(self) -> int:
        return self.min_replicas if self.initial_replicas is None else self.initial_replicas

    @property
    def to_zero_delay_s(self) -> float:
        delay_s = self.downscale_to_zero_delay_s
        return self.downscale_delay_s if delay_s is None else delay_s


class AutoscalingBudget(Section):
    """What all autoscaled variants together may take. `max_cost`: the sum of their replicas'
    `cost`; `max_memory_bytes`: of their replicas' memory (`resources.memory_bytes`, else what a
    replica was seen to hold, else the size of its files and of an empty process). Above it, what
    was asked least recently goes first where it may scale to zero; where everything is in use,
    what would have to start does not. Only `min_replicas` are kept beyond.
    `max_starting`: how many replicas start at a time, the others after them; without it as many
    as the cluster's nodes have cores, since a start keeps one busy. `loaded`: how models are
    scaled that are loaded at run time; without it they keep the replicas that they start with.
    """

    max_cost: float | None = Field(default=None, gt=0)
    max_memory_bytes: int | None = Field(default=None, gt=0)
    max_starting: int | None = Field(default=None, ge=1)
    loaded: AutoscalingConfig | None = None
