"""Steps of an ensemble that make one value of several members' values."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from cluster.config.section import Section

Combiner = Literal["mean", "logit_mean", "soft_vote", "hard_vote", "stacking", "code"]


class CombineStep(Section):
    """One value of the members' `inputs`, in their order.

    - `mean`: the weighted mean, of any numbers.
    - `soft_vote`: the weighted mean of the members' class probabilities.
    - `logit_mean`: the weighted mean of their logits, as probabilities.
    - `hard_vote`: each class's share of the votes; of labels (BYTES, integers) the one with most.
    - `stacking`, `code`: what `model` makes of them; its inputs are fed in their order. For
      stacking `squadron ensemble fit` makes that model, for code it is a Python class.

    `given`: whether the inputs are probabilities or logits. `weights`: default equal.
    `quorum`: how many inputs are enough when members fail; all of them if left out. A model that
    combines gets NaN for what is missing. `wait_ms`: how long a reached quorum waits for the rest;
    until their timeouts if left out, and never into the last tenth of the request's time.
    """

    combine: Combiner
    inputs: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] = ()
    given: Literal["probabilities", "logits"] = "probabilities"
    model: str = ""
    output: str
    quorum: int | None = Field(default=None, ge=1)
    wait_ms: float | None = Field(default=None, ge=0)

    @property
    def needed(self) -> int:
        """Inputs without which there is no output."""
        return len(self.inputs) if self.quorum is None else self.quorum

    @property
    def is_by_model(self) -> bool:
        return self.combine in ("stacking", "code")

    @model_validator(mode="after")
    def _keys_fit_the_combiner(self) -> Self:
        if self.is_by_model != bool(self.model):
            raise ValueError(
                f"combine: {self.combine} "
                + ("needs `model`" if self.is_by_model else "excludes `model`")
            )
        if self.weights and self.is_by_model:
            raise ValueError(f"combine: {self.combine} excludes weights")
        if self.given == "logits" and self.combine not in ("soft_vote", "logit_mean"):
            raise ValueError("given: logits needs combine: soft_vote or logit_mean")
        return self

    @model_validator(mode="after")
    def _numbers_fit_the_inputs(self) -> Self:
        if self.weights and len(self.weights) != len(self.inputs):
            raise ValueError(f"{len(self.weights)} weights for {len(self.inputs)} inputs")
        if any(not 0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"weights must be above 0, got {list(self.weights)}")
        if len(set(self.inputs)) != len(self.inputs):
            raise ValueError(f"inputs must be different values, got {list(self.inputs)}")
        if self.quorum is not None and self.quorum > len(self.inputs):
            raise ValueError(f"quorum is {self.quorum}, of {len(self.inputs)} inputs")
        if self.wait_ms is not None and self.quorum is None:
            raise ValueError("wait_ms needs quorum")
        return self
