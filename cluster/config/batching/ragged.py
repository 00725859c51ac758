"""Requests of different lengths in one batch without filling: laid end to end."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from cluster.config.section import Section

BatchInputKind = Literal[
    "element_count",
    "accumulated_element_count",
    "accumulated_element_count_with_zero",
    "max_element_count_as_shape",
    "item_shape",
    "item_shape_flatten",
]


class BatchInputConfig(Section):
    """An input of the artefact that says of each batch where its rows lie; callers do not send it.
    `kind` is Triton's, without `BATCH_`; `source`: the ragged input that it describes."""

    kind: BatchInputKind
    source: str


class RaggedConfig(Section):
    """`inputs`: those of one free axis whose rows the artefact takes end to end (`[-1]`, where a
    caller sends `[rows, -1]`). `batch_inputs`: the artefact's inputs that describe them."""

    inputs: tuple[str, ...] = Field(min_length=1)
    batch_inputs: dict[str, BatchInputConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_hold_together(self) -> Self:
        for name, each in self.batch_inputs.items():
            if name in self.inputs:
                raise ValueError(f"{name} is in inputs and in batch_inputs")
            if each.source not in self.inputs:
                raise ValueError(
                    f"batch_inputs.{name}.source is {each.source!r}; allowed: "
                    f"{', '.join(self.inputs)}"
                )
        return self
