"""How a variant serves sequences: requests that belong together and are run in their order.

Named as Triton's `sequence_batching` names it. A sequence lives on one replica.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from cluster.config.section import Section
from cluster.errors import ConfigError
from cluster.tensors import Datatype, Signature, TensorSpec

ControlKind = Literal["start", "ready", "end", "corrid"]
Number = bool | int | float

FLAG_DATATYPES: tuple[Datatype, ...] = ("INT32", "FP32", "BOOL")
ID_DATATYPES: tuple[Datatype, ...] = ("UINT64", "INT64", "UINT32", "INT32", "BYTES")


class ControlConfig(Section):
    """An input that the server fills: a flag with its false and true values, or the sequence's id
    (`corrid`; 32 bits take its lower half, BYTES take string ids)."""

    kind: ControlKind
    datatype: Datatype = "INT32"
    false_value: Number = 0
    true_value: Number = 1

    @model_validator(mode="after")
    def _datatype_fits(self) -> Self:
        allowed = ID_DATATYPES if self.kind == "corrid" else FLAG_DATATYPES
        if self.datatype not in allowed:
            raise ValueError(
                f"a control of kind {self.kind} has one of the datatypes {', '.join(allowed)}, "
                f"got {self.datatype}"
            )
        return self


class StateConfig(Section):
    """`output` of one request is `input` of the sequence's next one; clients see neither.

    Shapes: `shape` is of one row, without the batch. `initial`: one value for all elements, or all
    of them in row-major order; without it zeros (BYTES: empty).
    """

    input: str
    output: str
    datatype: Datatype
    shape: tuple[int, ...]
    initial: Number | str | tuple[Number | str, ...] | None = None

    @model_validator(mode="after")
    def _initial_fits(self) -> Self:
        if isinstance(self.initial, tuple):
            count = 1
            for size in self.shape:
                count *= max(size, 1)
            if len(self.initial) != count:
                raise ValueError(
                    f"initial of {self.input!r} has {len(self.initial)} elements, shape "
                    f"{list(self.shape)} needs {count}"
                )
        return self


class SequencesConfig(Section):
    """`direct`: a sequence keeps one row of the batch; as many run as the batch has rows, others
    wait. `oldest`: up to `max_candidate_sequences` run, each batch takes the oldest requests.

    Times are microseconds. `max_queue_delay_us` is how long a batch waits for company; with
    `direct` only while fewer than `minimum_slot_utilization` of the rows are filled.
    """

    max_sequence_idle_us: int = Field(default=1_000_000, ge=1)
    strategy: Literal["direct", "oldest"] = "direct"
    max_candidate_sequences: int = Field(default=1024, ge=1, le=1_000_000)
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = Field(default=0, ge=0, le=60_000_000)
    minimum_slot_utilization: float = Field(default=0.0, ge=0.0, le=1.0)
    controls: dict[str, ControlConfig] = Field(default_factory=dict)
    state: tuple[StateConfig, ...] = ()

    @model_validator(mode="after")
    def _each_tensor_once(self) -> Self:
        kinds = [control.kind for control in self.controls.values()]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ValueError(f"controls holds kind {kind} more than once")
        names = [*self.controls, *(item.input for item in self.state)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"tensor {name!r} is named more than once in controls and state")
        return self

    def public(self, raw: Signature, *, is_batched: bool) -> Signature:
        """What clients see of an artefact: its tensors without controls and state.

        Raises: ConfigError for a control or state tensor that the artefact does not have.
        """
        free = 1 if is_batched else 0
        for name, control in self.controls.items():
            _check(raw.input(name), name, control.datatype, None, free, raw.inputs)
        for item in self.state:
            _check(raw.input(item.input), item.input, item.datatype, item.shape, free, raw.inputs)
            _check(
                raw.output(item.output), item.output, item.datatype, item.shape, free, raw.outputs
            )
        filled = {*self.controls, *(item.input for item in self.state)}
        kept = {item.output for item in self.state}
        return Signature(
            inputs=tuple(spec for spec in raw.inputs if spec.name not in filled),
            outputs=tuple(spec for spec in raw.outputs if spec.name not in kept),
        )


def _check(
    spec: TensorSpec | None,
    name: str,
    datatype: Datatype,
    shape: tuple[int, ...] | None,
    free: int,
    known: tuple[TensorSpec, ...],
) -> None:
    names = ", ".join(tensor.name for tensor in known)
    if spec is None:
        raise ConfigError(
            f"sequences names the tensor {name!r}; the artefact has {names}",
            key="sequences",
            value=name,
            allowed=names,
        )
    if spec.datatype != datatype:
        raise ConfigError(
            f"sequences says that {name!r} is {datatype}; the artefact says {spec.datatype}",
            key="sequences",
            value=datatype,
            allowed=spec.datatype,
        )
    rows = spec.shape[free:]
    fits = shape is None or (
        len(shape) == len(rows)
        and all(-1 in pair or pair[0] == pair[1] for pair in zip(shape, rows, strict=True))
    )
    if not fits:
        raise ConfigError(
            f"sequences says that {name!r} has shape {list(shape or ())}; one row of the "
            f"artefact's has {list(rows)}",
            key="sequences",
            value=str(shape),
            allowed=str(list(rows)),
        )
