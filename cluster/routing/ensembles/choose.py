"""Which models a switch or a split calls, and with which rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cluster.config.ensembles.calls import Case, SplitStep, SwitchStep
from cluster.requests import Parameter
from cluster.routing.split import Arm, choose_arm
from cluster.tensors import Array, Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Share:
    """A model and the rows it gets; None: all of them."""

    model: str
    rows: Array | None = None


def switch_by_parameter(step: SwitchStep, parameters: Mapping[str, Parameter]) -> Share:
    """Without the parameter the default is called."""
    value = parameters.get(step.switch.parameter)
    if value is None:
        return Share(model=step.default)
    holds = (case.model for case in step.cases if _holds(case, value))
    return Share(model=next(holds, step.default))


def switch_by_value(step: SwitchStep, value: Tensor) -> tuple[Share, ...]:
    """Every row goes to the model of the first case that holds for it, else to the default."""
    rows = [_plain(element) for element in value.array.reshape(-1).tolist()]
    models = [
        next((case.model for case in step.cases if _holds(case, row)), step.default) for row in rows
    ]
    if len(set(models)) == 1:
        return (Share(model=models[0]),)
    return tuple(
        Share(model=model, rows=np.array([i for i, each in enumerate(models) if each == model]))
        for model in dict.fromkeys(models)
    )


def split_by_weight(step: SplitStep, *, name: str, key: str, draw: float) -> Share:
    """`name`: of the split, so that two splits draw a caller independently; `key`: see
    `choose_arm`."""
    arms = tuple(Arm(variant=model, weight=weight) for model, weight in step.split.items())
    return Share(model=choose_arm(arms, experiment=name, key=key, draw=draw).variant)


def _plain(element: Parameter | bytes) -> Parameter:
    return element.decode(errors="replace") if isinstance(element, bytes) else element


def _holds(case: Case, value: Parameter) -> bool:
    if case.equals is not None:
        # 1 and True are two values, "1" and 1 as well; 1 and 1.0 are one.
        is_truth = isinstance(case.equals, bool), isinstance(value, bool)
        return is_truth[0] == is_truth[1] and value == case.equals
    if isinstance(value, str | bool):
        return False
    is_above = case.at_least is None or value >= case.at_least
    return is_above and (case.below is None or value < case.below)
