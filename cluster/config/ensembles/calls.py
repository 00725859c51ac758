"""Steps of an ensemble that call a model: always the same one, by a value, or by a share."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from cluster.config.section import Section


class Call(Section):
    """What every call of a model has. `inputs`: the model's input -> a value of the graph;
    `outputs`: the model's output -> the name of a new value. Left out, names stay as they are.

    `timeout_ms`: after it the member counts as failed. `fallback`: the model that is asked instead
    when the member fails. `hedge_after_ms`: without an answer after it the member is asked a second
    time, and the first answer counts; at most one request in twenty is asked twice.
    """

    inputs: dict[str, str] = Field(default_factory=dict)
    outputs: dict[str, str] = Field(min_length=1)
    timeout_ms: float | None = Field(default=None, gt=0)
    fallback: str = ""
    hedge_after_ms: float | None = Field(default=None, gt=0)


class ModelStep(Call):
    """Call `model`."""

    model: str


class SwitchOn(Section):
    """What a switch looks at: a graph `value` (one element a row), or a request's `parameter`."""

    value: str = ""
    parameter: str = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.value) == bool(self.parameter):
            raise ValueError("needs exactly one of `value` and `parameter`")
        return self


class Case(Section):
    """A model, and when it is called: what is looked at `equals` a text, a number or a truth, is
    `at_least` a number or is `below` one (both: between them)."""

    model: str
    equals: bool | int | float | str | None = None
    at_least: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        has_range = self.at_least is not None or self.below is not None
        if (self.equals is not None) == has_range:
            raise ValueError("needs `equals`, or `at_least` and `below` (one of these or both)")
        return self


class SwitchStep(Call):
    """Call the model of the first case that holds, else `default`; by a value, row by row."""

    switch: SwitchOn
    cases: tuple[Case, ...] = Field(min_length=1)
    default: str

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*(case.model for case in self.cases), self.default)))


class SplitStep(Call):
    """Call one of the models, drawn by weight; a caller with a sticky key always meets the same."""

    split: dict[str, float] = Field(min_length=1)

    @model_validator(mode="after")
    def _weights_make_sense(self) -> Self:
        for name, weight in self.split.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"split.{name} is {weight}; a weight is a number >= 0")
        if sum(self.split.values()) <= 0:
            raise ValueError("every weight in split is 0; at least one must be above 0")
        return self
