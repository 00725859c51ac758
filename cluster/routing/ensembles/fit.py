"""Whether a step fits the values it reads, and what values it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.config.ensemble import CallStep, Step, TopKStep, models_of
from cluster.config.ensembles.calls import SwitchStep
from cluster.config.ensembles.combining import CombineStep
from cluster.errors import ConfigError
from cluster.tensors import Signature, TensorSpec

FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """What is known of every model by name; `labels`: the class names, where a card has some."""

    signatures: Mapping[str, Signature]
    labels: Mapping[str, tuple[bytes, ...]]


def input_map(step: CallStep, signature: Signature) -> dict[str, str]:
    """The model's input -> the graph value that feeds it; names left out stay as they are."""
    return {spec.name: step.inputs.get(spec.name, spec.name) for spec in signature.inputs}


def given_by(at: str, step: Step, values: Specs, members: Members) -> dict[str, TensorSpec]:
    """The values that a step adds. `at`: the step's place, for messages. Raises: ConfigError."""
    match step:
        case CombineStep():
            return {step.output: _combined(at, step, values, members)}
        case TopKStep():
            return _ranked(at, step, values, members)
        case _:
            return _called(at, step, values, members)


def spec_text(spec: TensorSpec) -> str:
    return f"{spec.name} ({_kind(spec)})"


def _kind(spec: TensorSpec) -> str:
    return f"{spec.datatype} [{','.join(map(str, spec.shape))}]"


def _called(at: str, step: CallStep, values: Specs, members: Members) -> dict[str, TensorSpec]:
    models = models_of(step)
    for model in models:
        signature = members.signatures[model]
        for name, value in input_map(step, signature).items():
            spec = signature.input(name)
            assert spec is not None  # the map is made of the signature
            _check_fits(f"{at}.inputs", model, spec, values[value])
    if isinstance(step, SwitchStep) and step.switch.value:
        _check_looks_at_rows(f"{at}.switch.value", values[step.switch.value])
    given: dict[str, TensorSpec] = {}
    for output, value in step.outputs.items():
        found = [_output(at, model, output, members) for model in models]
        for model, spec in zip(models[1:], found[1:], strict=True):
            if (spec.datatype, spec.shape) != (found[0].datatype, found[0].shape):
                raise ConfigError(
                    f"{at}.outputs: {output!r} of {models[0]} is {_kind(found[0])}, of {model} "
                    f"{_kind(spec)}; models that stand for each other must give the same",
                    key=f"{at}.outputs",
                )
        given[value] = TensorSpec(name=value, datatype=found[0].datatype, shape=found[0].shape)
    return given


def _output(at: str, model: str, output: str, members: Members) -> TensorSpec:
    signature = members.signatures[model]
    spec = signature.output(output)
    if spec is None:
        known = ", ".join(s.name for s in (*signature.outputs, *signature.extra_outputs))
        raise ConfigError(
            f"{at}.outputs: {model} has no output {output!r}; allowed: {known}",
            key=f"{at}.outputs",
            value=output,
            allowed=known,
        )
    return spec


def _check_fits(at: str, model: str, wanted: TensorSpec, value: TensorSpec) -> None:
    """Sizes that the graph leaves open (-1) are looked at with every request."""
    is_same_rank = len(wanted.shape) == len(value.shape)
    if (
        wanted.datatype != value.datatype
        or not is_same_rank
        or any(
            -1 not in (want, size) and want != size
            for want, size in zip(wanted.shape, value.shape, strict=True)
        )
    ):
        raise ConfigError(
            f"{at}: {model} takes {wanted.name!r} as {_kind(wanted)}, and value {value.name!r} is "
            f"{_kind(value)}",
            key=at,
            value=value.name,
            allowed=_kind(wanted),
        )


def _check_looks_at_rows(at: str, value: TensorSpec) -> None:
    if any(size != 1 for size in value.shape[1:]):
        raise ConfigError(
            f"{at}: a switch looks at one element a row, and {spec_text(value)} has more",
            key=at,
            value=value.name,
        )


def _combined(at: str, step: CombineStep, values: Specs, members: Members) -> TensorSpec:
    specs = [values[name] for name in step.inputs]
    if step.is_by_model:
        return _combined_by_model(at, step, specs, members)
    shapes = {spec.shape for spec in specs}
    if len(shapes) != 1:
        raise ConfigError(f"{at}.inputs: shapes differ: {sorted(shapes)}", key=f"{at}.inputs")
    datatypes = {spec.datatype for spec in specs}
    shape = specs[0].shape
    if step.combine == "hard_vote" and not datatypes <= FLOATS:
        if len(datatypes) == 1:
            return TensorSpec(name=step.output, datatype=datatypes.pop(), shape=shape)
    elif datatypes <= FLOATS and len(shape) > 0:
        return TensorSpec(name=step.output, datatype="FP32", shape=shape)
    raise ConfigError(
        f"{at}.inputs: {step.combine} cannot combine "
        + ", ".join(spec_text(spec) for spec in specs),
        key=f"{at}.inputs",
        allowed="floats of one shape"
        + (" or labels of one datatype" if step.combine == "hard_vote" else ""),
    )


def _combined_by_model(
    at: str, step: CombineStep, specs: list[TensorSpec], members: Members
) -> TensorSpec:
    signature = members.signatures[step.model]
    if len(signature.inputs) != len(specs):
        raise ConfigError(
            f"{at}.inputs: {step.model} takes {len(signature.inputs)} inputs, got {len(specs)}",
            key=f"{at}.inputs",
        )
    for wanted, spec in zip(signature.inputs, specs, strict=True):
        _check_fits(f"{at}.inputs", step.model, wanted, spec)
        is_open = spec.datatype not in FLOATS or -1 in spec.shape[1:]
        if step.needed < len(specs) and is_open:
            raise ConfigError(
                f"{at}.quorum: a missing {spec_text(spec)} cannot be filled with NaN",
                key=f"{at}.quorum",
                allowed="inputs of floats whose shape is fixed but for the batch",
            )
    first = signature.outputs[0]
    return TensorSpec(name=step.output, datatype=first.datatype, shape=first.shape)


def _ranked(at: str, step: TopKStep, values: Specs, members: Members) -> dict[str, TensorSpec]:
    if step.labels_of not in members.labels:
        raise ConfigError(
            f"{at}.labels_of: {step.labels_of} has no labels in its model card",
            key=f"{at}.labels_of",
        )
    spec = values[step.input]
    if spec.datatype not in FLOATS or len(spec.shape) != 2:
        raise ConfigError(
            f"{at}.input: top_k ranks floats [batch, classes], and {spec_text(spec)} is none",
            key=f"{at}.input",
        )
    shape = (spec.shape[0], step.top_k)
    return {
        step.labels: TensorSpec(name=step.labels, datatype="BYTES", shape=shape),
        step.scores: TensorSpec(name=step.scores, datatype="FP32", shape=shape),
    }
