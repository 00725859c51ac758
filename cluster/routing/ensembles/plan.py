"""An ensemble's graph, checked once: every value has one giver, a datatype and a shape."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from cluster.config.ensemble import (
    CallStep,
    EnsembleConfig,
    Step,
    TopKStep,
    models_of,
)
from cluster.config.ensembles.calls import ModelStep, SplitStep, SwitchStep
from cluster.config.ensembles.combining import CombineStep
from cluster.errors import ConfigError
from cluster.routing.ensembles.fit import Members, given_by, input_map, spec_text
from cluster.tensors import Datatype, Signature, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step with its graph values: `needs` before it can run, `gives` afterwards.

    `enough`: how many of `needs` it can run with when the others fail.
    """

    step: Step
    needs: frozenset[str]
    gives: frozenset[str]
    enough: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsemblePlan:
    """A checked graph. `labels` holds the class names of every `labels_of` model, `values` every
    value's datatype and shape. `stream`: the index of the step whose model streams (the last)."""

    name: str
    signature: Signature
    steps: tuple[PlannedStep, ...]
    labels: Mapping[str, tuple[bytes, ...]]
    values: Mapping[str, TensorSpec]
    stream: int | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that an answer may need, each once."""
        return tuple(dict.fromkeys(name for p in self.steps for name in models_of(p.step)))

    @property
    def varies(self) -> str:
        """Why two answers to one request may differ; empty when they do not."""
        for planned in self.steps:
            match planned.step:
                case SplitStep():
                    return "a split is among its steps"
                case CombineStep(quorum=quorum) if quorum is not None:
                    return "a quorum may answer without some members"
                case ModelStep(fallback=fallback) | SwitchStep(fallback=fallback) if fallback:
                    return "a fallback may answer for a member"
        return ""


def plan_ensemble(
    name: str,
    config: EnsembleConfig,
    signatures: Mapping[str, Signature],
    labels: Mapping[str, tuple[bytes, ...]],
    decoupled: Set[str] = frozenset(),
    nested: Set[str] = frozenset(),
) -> EnsemblePlan:
    """The graph in an order that can run, with its own signature. `decoupled`: variants that
    stream; `nested`: ensembles and experiments that do.

    Raises: ConfigError naming the step and the value: unknown model input or output, a value that
    nothing gives or two steps give, a cycle, an output that no step gives, values that do not fit
    what reads them.
    """
    where = f"ensembles.{name}"
    members = Members(signatures=signatures, labels=labels)
    inputs = _client_inputs(where, config, signatures)
    values: dict[str, TensorSpec] = dict(inputs)
    waiting = list(enumerate(config.steps))
    ordered: list[PlannedStep] = []
    while waiting:
        ready = [(i, step) for i, step in waiting if _needs(step, signatures) <= values.keys()]
        if not ready:
            raise _stuck(where, waiting, values, signatures)
        for index, step in ready:
            at = f"{where}.steps.{index}"
            gives = given_by(at, step, values, members)
            for value in gives:
                if value in values:
                    raise ConfigError(f"{at}: value {value!r} is given twice", key=at)
            values |= gives
            needs = frozenset(_needs(step, signatures))
            enough = step.needed if isinstance(step, CombineStep) else len(needs)
            ordered.append(
                PlannedStep(step=step, needs=needs, gives=frozenset(gives), enough=enough)
            )
        done = {index for index, _ in ready}
        waiting = [(i, step) for i, step in waiting if i not in done]
    for output in config.outputs:
        if output not in values or output in inputs:
            known = ", ".join(sorted(values.keys() - inputs.keys()))
            raise ConfigError(
                f"{where}.outputs: no step gives {output!r}; allowed: {known}",
                key=f"{where}.outputs",
            )
    used = {p.step.labels_of for p in ordered if isinstance(p.step, TopKStep)}
    return EnsemblePlan(
        name=name,
        signature=Signature(
            inputs=tuple(inputs.values()),
            outputs=tuple(values[output] for output in config.outputs),
        ),
        steps=tuple(ordered),
        labels={model: labels[model] for model in used},
        values=values,
        stream=_stream_of(where, config, ordered, decoupled, nested),
    )


def _needs(step: Step, signatures: Mapping[str, Signature]) -> set[str]:
    match step:
        case CombineStep():
            return set(step.inputs)
        case TopKStep():
            return {step.input}
        case _:
            needs = {
                value
                for model in models_of(step)
                for value in input_map(step, signatures[model]).values()
            }
            if isinstance(step, SwitchStep) and step.switch.value:
                needs.add(step.switch.value)
            return needs


def _gives(step: Step) -> set[str]:
    match step:
        case CombineStep():
            return {step.output}
        case TopKStep():
            return {step.labels, step.scores}
        case _:
            return set(step.outputs.values())


def _client_inputs(
    where: str, config: EnsembleConfig, signatures: Mapping[str, Signature]
) -> dict[str, TensorSpec]:
    """The graph's inputs take datatype and shape from the first model input that reads them; one
    that only switches read from their first case."""
    found: dict[str, TensorSpec] = {}
    for index, step in enumerate(config.steps):
        if isinstance(step, CallStep):
            _check_input_names(f"{where}.steps.{index}.inputs", step, signatures)
            for model in models_of(step):
                for spec in signatures[model].inputs:
                    value = step.inputs.get(spec.name, spec.name)
                    if value in config.inputs and value not in found:
                        found[value] = TensorSpec(
                            name=value, datatype=spec.datatype, shape=spec.shape
                        )
    for step in config.steps:
        if isinstance(step, SwitchStep) and step.switch.value in config.inputs:
            value = step.switch.value
            if value not in found:
                found[value] = TensorSpec(name=value, datatype=_looked_at(step), shape=(-1,))
    for value in config.inputs:
        if value not in found:
            raise ConfigError(f"{where}.inputs: no step reads {value!r}", key=f"{where}.inputs")
    return {value: found[value] for value in config.inputs}


def _looked_at(step: SwitchStep) -> Datatype:
    match step.cases[0].equals:
        case bool():
            return "BOOL"
        case int():
            return "INT64"
        case str():
            return "BYTES"
        case _:
            return "FP32"


def _check_input_names(at: str, step: CallStep, signatures: Mapping[str, Signature]) -> None:
    """A name that no model of the step takes is a mistake; a switch's models may differ."""
    models = models_of(step)
    known = {spec.name for model in models for spec in signatures[model].inputs}
    for given in step.inputs:
        if given not in known:
            raise ConfigError(
                f"{at}: {' and '.join(models)} has no input {given!r}; "
                f"allowed: {', '.join(sorted(known))}",
                key=at,
                value=given,
                allowed=", ".join(sorted(known)),
            )


def _stream_of(
    where: str,
    config: EnsembleConfig,
    steps: list[PlannedStep],
    decoupled: Set[str],
    nested: Set[str],
) -> int | None:
    """A variant that streams can only be the last step, and its parts are the ensemble's answer."""
    for index, planned in enumerate(steps):
        streams = [model for model in models_of(planned.step) if model in decoupled | nested]
        if not streams:
            continue
        at = f"{where}.steps.{config.steps.index(planned.step)}"
        if streams[0] in nested:
            raise ConfigError(
                f"{at}: {streams[0]} streams, and of what streams only a variant can be a step",
                key=at,
                value=streams[0],
            )
        step = planned.step
        is_plain = isinstance(step, ModelStep) and not (
            step.fallback or step.timeout_ms or step.hedge_after_ms
        )
        if not is_plain:
            raise ConfigError(
                f"{at}: {streams[0]} is decoupled, and only a model step without a fallback, "
                "timeout_ms and hedge_after_ms can stream",
                key=at,
            )
        if planned.gives != set(config.outputs):
            raise ConfigError(
                f"{at}: {streams[0]} is decoupled, so it must be the last step and give all "
                f"outputs; it gives {', '.join(sorted(planned.gives))}",
                key=at,
            )
        return index
    return None


def _stuck(
    where: str,
    waiting: list[tuple[int, Step]],
    values: Mapping[str, TensorSpec],
    signatures: Mapping[str, Signature],
) -> ConfigError:
    """The step whose value no step gives; where all are given, the steps that wait for one
    another, not those that merely wait for them."""
    lacks = {index: _needs(step, signatures) - values.keys() for index, step in waiting}
    gives = {index: _gives(step) for index, step in waiting}
    given = {name for names in gives.values() for name in names}
    nobodys = {index: names - given for index, names in lacks.items() if names - given}
    if not nobodys:
        return _cycle(where, lacks, gives)
    index = min(nobodys)
    missing = ", ".join(sorted(nobodys[index]))
    allowed = ", ".join(spec_text(spec) for spec in values.values())
    return ConfigError(
        f"{where}.steps.{index}: nothing gives {missing}; allowed: {allowed}",
        key=f"{where}.steps.{index}",
        allowed=allowed,
    )


def _cycle(where: str, lacks: Mapping[int, Set[str]], gives: Mapping[int, Set[str]]) -> ConfigError:
    path = [min(lacks)]
    while True:
        after = next(i for i in sorted(gives) if gives[i] & lacks[path[-1]])
        if after in path:
            path = path[path.index(after) :]
            break
        path.append(after)
    first = path.index(min(path))
    path = [*path[first:], *path[:first]]
    waits = [
        f"step {i} needs {min(gives[j] & lacks[i])} of step {j}"
        for i, j in zip(path, [*path[1:], path[0]], strict=True)
    ]
    return ConfigError(
        f"{where}.steps.{path[0]}: a cycle: {', '.join(waits)}", key=f"{where}.steps.{path[0]}"
    )
