"""The tensors of a batch of sequences: clients' inputs, control tensors and carried state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.config.sequences import ControlConfig, SequencesConfig, StateConfig
from cluster.errors import InvalidRequest
from cluster.requests import SequenceStep
from cluster.tensors import NUMPY_DTYPES, Array, Signature, TensorSpec, bytes_array

State = dict[str, Array]
"""Of one sequence: an input of the artefact by its name, one row."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceRow:
    """One request: its inputs (one row each) and the state that its sequence has come to."""

    inputs: dict[str, Array]
    step: SequenceStep
    state: State | None = None


class SequenceTensors:
    """Of one model. `signature` is what clients see.

    Raises: ConfigError for controls or state that do not fit the artefact.
    """

    def __init__(self, config: SequencesConfig, raw: Signature, *, is_batched: bool) -> None:
        self.signature = config.public(raw, is_batched=is_batched)
        self._config = config
        self._raw = raw
        self._is_batched = is_batched

    def check_id(self, step: SequenceStep) -> None:
        """Raises: InvalidRequest for an id that the model's id tensor cannot hold."""
        for name, control in self._config.controls.items():
            is_text = control.datatype == "BYTES"
            if control.kind == "corrid" and isinstance(step.id, str) != is_text:
                wanted = "a string" if is_text else "an integer"
                raise InvalidRequest(
                    f"sequence_id must be {wanted}: the model takes it as {name!r}, which is "
                    f"{control.datatype}; got {step.id!r}"
                )

    def merge(self, rows: Sequence[SequenceRow | None]) -> dict[str, Array]:
        """What the engine takes; None is a row that is not ready, filled with zeros."""
        some = next(row for row in rows if row is not None)
        merged: dict[str, Array] = {}
        for spec in self.signature.inputs:
            empty = _empty_like(some.inputs[spec.name])
            merged[spec.name] = self._join(
                [empty if row is None else row.inputs[spec.name] for row in rows]
            )
        for name, control in self._config.controls.items():
            shape = _fixed(self._one_row(self._raw.input(name)))
            merged[name] = self._join([_control(control, row, shape) for row in rows])
        for item in self._config.state:
            merged[item.input] = self._join([self._state(item, row) for row in rows])
        return merged

    def public_outputs(self, outputs: dict[str, Array], row: int) -> dict[str, Array]:
        """One row of what clients see."""
        return {spec.name: self._row(outputs[spec.name], row) for spec in self.signature.outputs}

    def new_state(self, outputs: dict[str, Array], row: int) -> State:
        """What a row's sequence goes on with; copies, so that no whole batch is kept alive."""
        return {
            item.input: self._row(outputs[item.output], row).copy() for item in self._config.state
        }

    def _state(self, item: StateConfig, row: SequenceRow | None) -> Array:
        if row is not None and row.state is not None and not row.step.is_start:
            return row.state[item.input]
        shape = _fixed(item.shape)
        return _initial(item, (1, *shape) if self._is_batched else shape)

    def _one_row(self, spec: TensorSpec | None) -> tuple[int, ...]:
        assert spec is not None  # the config was checked against the artefact
        return (1, *spec.shape[1:]) if self._is_batched else spec.shape

    def _join(self, arrays: list[Array]) -> Array:
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def _row(self, array: Array, row: int) -> Array:
        return array[row : row + 1] if self._is_batched else array


def _fixed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if size == -1 else size for size in shape)


def _empty_like(array: Array) -> Array:
    if array.dtype == np.object_:
        return bytes_array([b""] * array.size, array.shape)
    return np.zeros_like(array)


def _control(control: ControlConfig, row: SequenceRow | None, shape: tuple[int, ...]) -> Array:
    dtype = NUMPY_DTYPES[control.datatype]
    if control.kind == "corrid":
        name = row.step.id if row is not None else (b"" if control.datatype == "BYTES" else 0)
        if isinstance(name, int):
            # A narrower tensor takes the id's lower bits.
            lower = np.array([name & (2 ** (8 * dtype.itemsize) - 1)], f"u{dtype.itemsize}")
            return np.broadcast_to(lower.view(dtype), shape)
        text = name.encode() if isinstance(name, str) else name
        return bytes_array([text] * int(np.prod(shape)), shape)
    flags = {"ready": row is not None}
    if row is not None:
        flags |= {"start": row.step.is_start, "end": row.step.is_end}
    value = control.true_value if flags.get(control.kind, False) else control.false_value
    return np.full(shape, value, dtype)


def _initial(item: StateConfig, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    values = item.initial if isinstance(item.initial, tuple) else (item.initial,) * count
    if item.datatype == "BYTES":
        texts = [b"" if value is None else str(value).encode() for value in values]
        return bytes_array(texts, shape)
    numbers = [0 if value is None else value for value in values]
    return np.array(numbers, NUMPY_DTYPES[item.datatype]).reshape(shape)
