"""Whether arrays are what a signature says; the words of a refusal are written for the caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.errors import EngineFailed, InvalidRequest, SquadronError
from cluster.tensors import Array, Datatype, Signature, TensorSpec, datatype_of


def check_inputs(inputs: Mapping[str, Array], signature: Signature, *, is_batched: bool) -> int:
    """The number of rows (1 when the model is not batched).

    Raises: InvalidRequest for a missing or unknown name, a wrong datatype or shape, no rows at
    all, or inputs that disagree on the number of rows.
    """
    _check_names(inputs, signature.inputs)
    for spec in signature.inputs:
        complaint = disagreement(inputs[spec.name], spec, is_batched=is_batched)
        if complaint:
            raise InvalidRequest(f"input {spec.name!r}: {complaint}", tensor=spec.name)
    if not is_batched or not signature.inputs:
        return 1
    rows = {spec.name: int(inputs[spec.name].shape[0]) for spec in signature.inputs}
    if len(set(rows.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise InvalidRequest(f"inputs disagree on the number of rows: {said}")
    count = next(iter(rows.values()))
    if count == 0:
        raise InvalidRequest("a request needs at least one row, got 0")
    return count


def check_outputs(
    outputs: Mapping[str, Array], specs: Iterable[TensorSpec], *, rows: int, is_batched: bool
) -> None:
    """Raises: EngineFailed when a model did not answer what its card promises."""
    for spec in specs:
        if spec.name not in outputs:
            raise EngineFailed(f"the model gave no output {spec.name!r}", tensor=spec.name)
        array = outputs[spec.name]
        complaint = disagreement(array, spec, is_batched=is_batched)
        if not complaint and is_batched and array.shape[0] != rows:
            complaint = f"{array.shape[0]} rows for {rows} rows of input"
        if complaint:
            raise EngineFailed(f"output {spec.name!r}: {complaint}", tensor=spec.name)


def disagreement(array: Array, spec: TensorSpec, *, is_batched: bool) -> str:
    """What does not fit, in words; empty when all does. The batch dimension is free."""
    datatype = _datatype(array)
    if datatype != spec.datatype:
        return f"expected datatype {spec.datatype}, got {datatype}"
    free = 1 if is_batched else 0
    fits = len(array.shape) == len(spec.shape) and all(
        wanted in (-1, found)
        for wanted, found in zip(spec.shape[free:], array.shape[free:], strict=True)
    )
    return "" if fits else f"expected shape {list(spec.shape)}, got {list(array.shape)}"


def _check_names(inputs: Mapping[str, Array], specs: tuple[TensorSpec, ...]) -> None:
    if len(inputs) == len(specs) and all(spec.name in inputs for spec in specs):
        return
    known = {spec.name for spec in specs}
    takes = ", ".join(f"{spec.name!r} ({spec.datatype} {list(spec.shape)})" for spec in specs)
    error: SquadronError | None = None
    if unknown := [name for name in inputs if name not in known]:
        error = InvalidRequest(f"unexpected input {unknown[0]!r}; the model takes {takes}")
    elif missing := [name for name in known if name not in inputs]:
        error = InvalidRequest(f"input {sorted(missing)[0]!r} is missing; the model takes {takes}")
    if error is not None:
        raise error


def _datatype(array: Array) -> Datatype | str:
    try:
        return datatype_of(array)
    except TypeError:
        return str(array.dtype)
