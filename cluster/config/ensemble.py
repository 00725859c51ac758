"""A graph of models under one name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Field, Tag

from cluster.config.cache import ResponseCacheConfig
from cluster.config.ensembles.calls import ModelStep, SplitStep, SwitchStep
from cluster.config.ensembles.combining import CombineStep
from cluster.config.section import Section


class TopKStep(Section):
    """Probabilities -> `labels` and `scores`, best first; the names are those of `labels_of`."""

    top_k: int = Field(gt=0)
    input: str
    labels_of: str
    labels: str = "labels"
    scores: str = "scores"


# A combine step may name a model as well, so its key is looked for first.
_KINDS: dict[str, type[Section]] = {
    "combine": CombineStep,
    "switch": SwitchStep,
    "split": SplitStep,
    "top_k": TopKStep,
    "model": ModelStep,
}


def _kind_of_step(step: object) -> str | None:
    """A step is what its telling key says, so that its other mistakes are told of that kind."""
    if isinstance(step, Mapping):
        return next((f"{key} step" for key in _KINDS if key in step), None)
    return next((f"{key} step" for key, kind in _KINDS.items() if isinstance(step, kind)), None)


Step = Annotated[
    Annotated[ModelStep, Tag("model step")]
    | Annotated[SwitchStep, Tag("switch step")]
    | Annotated[SplitStep, Tag("split step")]
    | Annotated[CombineStep, Tag("combine step")]
    | Annotated[TopKStep, Tag("top_k step")],
    Discriminator(
        _kind_of_step,
        custom_error_type="no_such_step",
        custom_error_message="a step needs the key that says what it does",
        custom_error_context={"expected": "model, switch, split, combine or top_k"},
    ),
]
CallStep = ModelStep | SwitchStep | SplitStep


class EnsembleConfig(Section):
    """Steps run as soon as what they need is there, members side by side.

    `inputs` and `outputs` name the graph's own values that clients send and receive.
    `response_cache` keeps whole answers; a member's own switch keeps that step's outputs.
    """

    inputs: tuple[str, ...] = Field(min_length=1)
    outputs: tuple[str, ...] = Field(min_length=1)
    steps: tuple[Step, ...] = Field(min_length=1)
    response_cache: ResponseCacheConfig = ResponseCacheConfig()

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that an answer may need, each once."""
        return tuple(dict.fromkeys(name for step in self.steps for name in models_of(step)))


def models_of(step: Step) -> tuple[str, ...]:
    """The models that a step may call, the usual ones first and its fallback last."""
    match step:
        case ModelStep():
            found: tuple[str, ...] = (step.model,)
        case SwitchStep():
            found = step.models
        case SplitStep():
            found = tuple(step.split)
        case CombineStep():
            return (step.model,) if step.model else ()
        case TopKStep():
            return ()
    return (*found, step.fallback) if step.fallback else found


def first_calls(step: CallStep) -> tuple[str, ...]:
    """The models that a step calls, without its fallback."""
    models = models_of(step)
    return models[:-1] if step.fallback else models


def places_of(step: Step) -> tuple[tuple[str, str], ...]:
    """Where a step names models: key below the step, and the name there."""
    match step:
        case ModelStep():
            found: tuple[tuple[str, str], ...] = (("model", step.model),)
        case SwitchStep():
            cases = tuple((f"cases.{i}.model", case.model) for i, case in enumerate(step.cases))
            found = (*cases, ("default", step.default))
        case SplitStep():
            found = tuple((f"split.{name}", name) for name in step.split)
        case CombineStep():
            return (("model", step.model),) if step.model else ()
        case TopKStep():
            return ()
    return (*found, ("fallback", step.fallback)) if step.fallback else found


def name_of(step: Step) -> str:
    """What people call a step: its model, or what it does."""
    match step:
        case ModelStep():
            return step.model
        case SwitchStep():
            return f"switch: {', '.join(step.models)}"
        case SplitStep():
            return f"split: {', '.join(step.split)}"
        case CombineStep():
            return f"{step.combine} {step.model}".rstrip()
        case TopKStep():
            return f"top {step.top_k}"
