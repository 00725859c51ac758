"""A graph of models under one name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from cluster.config.cache import ResponseCacheConfig
from cluster.config.section import Section


class ModelStep(Section):
    """Call `model`. `inputs`: the model's input -> a value of the graph; `outputs`: the model's
    output -> the name of a new value. Left out, names stay as they are.
    """

    model: str
    inputs: dict[str, str] = Field(default_factory=dict)
    outputs: dict[str, str] = Field(min_length=1)


class CombineStep(Section):
    """Mean of float values of one shape (`weights` in their order, default equal)."""

    combine: Literal["mean"]
    inputs: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] = ()
    output: str


class TopKStep(Section):
    """Probabilities -> `labels` and `scores`, best first; the names are those of `labels_of`."""

    top_k: int = Field(gt=0)
    input: str
    labels_of: str
    labels: str = "labels"
    scores: str = "scores"


_TAGS: dict[type[Section], str] = {
    ModelStep: "model step",
    CombineStep: "combine step",
    TopKStep: "top_k step",
}


def _kind_of_step(step: object) -> str | None:
    """A step is what its telling key says, so that its other mistakes are told of that kind."""
    if isinstance(step, Mapping):
        return next((f"{key} step" for key in ("model", "combine", "top_k") if key in step), None)
    return next((tag for kind, tag in _TAGS.items() if isinstance(step, kind)), None)


Step = Annotated[
    Annotated[ModelStep, Tag("model step")]
    | Annotated[CombineStep, Tag("combine step")]
    | Annotated[TopKStep, Tag("top_k step")],
    Discriminator(
        _kind_of_step,
        custom_error_type="no_such_step",
        custom_error_message="a step needs the key that says what it does",
        custom_error_context={"expected": "model, combine or top_k"},
    ),
]


class EnsembleConfig(Section):
    """Steps run as soon as what they need is there, members side by side.

    `inputs` and `outputs` name the graph's own values that clients send and receive.
    `response_cache` keeps whole answers; a member's own switch keeps that step's outputs.
    """

    inputs: tuple[str, ...] = Field(min_length=1)
    outputs: tuple[str, ...] = Field(min_length=1)
    steps: tuple[Step, ...] = Field(min_length=1)
    response_cache: ResponseCacheConfig = ResponseCacheConfig()
