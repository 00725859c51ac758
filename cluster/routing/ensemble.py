"""An ensemble's graph, checked once and then asked what can run next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.config.ensemble import CombineStep, EnsembleConfig, ModelStep, Step, TopKStep
from cluster.errors import ConfigError
from cluster.tensors import Signature, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step with its graph values: `needs` before it can run, `gives` afterwards."""

    step: Step
    needs: frozenset[str]
    gives: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsemblePlan:
    """A checked graph. `labels` holds the class names of every `labels_of` model."""

    name: str
    signature: Signature
    steps: tuple[PlannedStep, ...]
    labels: Mapping[str, tuple[bytes, ...]]

    def runnable(self, known: frozenset[str], started: frozenset[int]) -> tuple[int, ...]:
        """Indices of the steps that can start now: inputs known, not started yet."""
        return tuple(
            index
            for index, planned in enumerate(self.steps)
            if index not in started and planned.needs <= known
        )

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(p.step.model for p in self.steps if isinstance(p.step, ModelStep))


def plan_ensemble(
    name: str,
    config: EnsembleConfig,
    signatures: Mapping[str, Signature],
    labels: Mapping[str, tuple[bytes, ...]],
) -> EnsemblePlan:
    """The graph in an order that can run, with its own signature.

    Raises: ConfigError naming the step and the value: unknown model input or output, a value that
    nothing gives or two steps give, a cycle, an output that no step gives.
    """
    where = f"ensembles.{name}"
    values: dict[str, TensorSpec] = {}
    waiting = list(enumerate(config.steps))
    ordered: list[PlannedStep] = []
    given_by_client = _client_inputs(where, config, signatures)
    values |= given_by_client
    while waiting:
        ready = [(i, step) for i, step in waiting if _needs(step, signatures) <= values.keys()]
        if not ready:
            raise _stuck(where, waiting, values, signatures)
        for index, step in ready:
            gives = _gives(f"{where}.steps.{index}", step, values, signatures, labels)
            for value in gives:
                if value in values:
                    raise ConfigError(f"{where}.steps.{index}: value {value!r} is given twice")
            values |= gives
            needs = frozenset(_needs(step, signatures))
            ordered.append(PlannedStep(step=step, needs=needs, gives=frozenset(gives)))
        done = {index for index, _ in ready}
        waiting = [(i, step) for i, step in waiting if i not in done]
    for output in config.outputs:
        if output not in values or output in given_by_client:
            known = ", ".join(sorted(values.keys() - given_by_client.keys()))
            raise ConfigError(f"{where}.outputs: no step gives {output!r}; allowed: {known}")
    signature = Signature(
        inputs=tuple(given_by_client.values()),
        outputs=tuple(values[output] for output in config.outputs),
    )
    used = {p.step.labels_of for p in ordered if isinstance(p.step, TopKStep)}
    return EnsemblePlan(
        name=name,
        signature=signature,
        steps=tuple(ordered),
        labels={model: labels[model] for model in used},
    )


def input_map(step: ModelStep, signature: Signature) -> dict[str, str]:
    """The model's input -> the graph value that feeds it; names left out stay as they are."""
    return {spec.name: step.inputs.get(spec.name, spec.name) for spec in signature.inputs}


def _needs(step: Step, signatures: Mapping[str, Signature]) -> set[str]:
    match step:
        case ModelStep():
            return set(input_map(step, signatures[step.model]).values())
        case CombineStep():
            return set(step.inputs)
        case TopKStep():
            return {step.input}


def _client_inputs(
    where: str, config: EnsembleConfig, signatures: Mapping[str, Signature]
) -> dict[str, TensorSpec]:
    """The graph's inputs take datatype and shape from the first model input that reads them."""
    found: dict[str, TensorSpec] = {}
    for index, step in enumerate(config.steps):
        if not isinstance(step, ModelStep):
            continue
        signature = signatures[step.model]
        names = {spec.name for spec in signature.inputs}
        for given in step.inputs:
            if given not in names:
                raise ConfigError(
                    f"{where}.steps.{index}.inputs: {step.model} has no input {given!r}; "
                    f"allowed: {', '.join(sorted(names))}"
                )
        for spec in signature.inputs:
            value = step.inputs.get(spec.name, spec.name)
            if value in config.inputs and value not in found:
                found[value] = TensorSpec(name=value, datatype=spec.datatype, shape=spec.shape)
    for value in config.inputs:
        if value not in found:
            raise ConfigError(f"{where}.inputs: no step reads {value!r}")
    return found


def _gives(
    where: str,
    step: Step,
    values: Mapping[str, TensorSpec],
    signatures: Mapping[str, Signature],
    labels: Mapping[str, tuple[bytes, ...]],
) -> dict[str, TensorSpec]:
    match step:
        case ModelStep(model=model, outputs=outputs):
            given: dict[str, TensorSpec] = {}
            for output, value in outputs.items():
                spec = signatures[model].output(output)
                if spec is None:
                    signature = signatures[model]
                    every = (*signature.outputs, *signature.extra_outputs)
                    known = ", ".join(spec.name for spec in every)
                    raise ConfigError(
                        f"{where}.outputs: {model} has no output {output!r}; allowed: {known}"
                    )
                given[value] = TensorSpec(name=value, datatype=spec.datatype, shape=spec.shape)
            return given
        case CombineStep(inputs=inputs, weights=weights, output=output):
            if weights and len(weights) != len(inputs):
                raise ConfigError(
                    f"{where}.weights: {len(weights)} weights for {len(inputs)} inputs"
                )
            shapes = {values[name].shape for name in inputs}
            if len(shapes) != 1:
                raise ConfigError(f"{where}.inputs: shapes differ: {sorted(shapes)}")
            return {output: TensorSpec(name=output, datatype="FP32", shape=shapes.pop())}
        case TopKStep(top_k=top_k, labels_of=model) as step:
            if model not in labels:
                raise ConfigError(f"{where}.labels_of: {model} has no labels in its model card")
            batch = values[step.input].shape[0]
            return {
                step.labels: TensorSpec(name=step.labels, datatype="BYTES", shape=(batch, top_k)),
                step.scores: TensorSpec(name=step.scores, datatype="FP32", shape=(batch, top_k)),
            }


def _stuck(
    where: str,
    waiting: list[tuple[int, Step]],
    values: Mapping[str, TensorSpec],
    signatures: Mapping[str, Signature],
) -> ConfigError:
    index, step = waiting[0]
    missing = ", ".join(sorted(_needs(step, signatures) - values.keys()))
    return ConfigError(
        f"{where}.steps.{index}: nothing gives {missing} (or it depends on this step itself); "
        f"allowed: {', '.join(sorted(values))}"
    )
