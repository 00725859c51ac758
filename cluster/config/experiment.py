"""Variants that share one model's traffic."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from cluster.config.section import Section


class ExperimentConfig(Section):
    """`split` maps variants to weights (any positive scale; 0 receives nothing, but stays loaded).

    Requests that carry `sticky_header` always meet the same variant; the others are drawn.
    """

    split: dict[str, float] = Field(min_length=1)
    sticky_header: str = "x-squadron-user"

    @model_validator(mode="after")
    def _weights_make_sense(self) -> Self:
        for name, weight in self.split.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"split.{name} is {weight}; a weight is a number >= 0")
        if sum(self.split.values()) <= 0:
            raise ValueError("every weight in split is 0; at least one must be above 0")
        return self
