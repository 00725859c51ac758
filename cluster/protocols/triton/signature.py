"""Triton's `input` and `output` as the signature of a model card."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from cluster.config.model_card import SignatureCard, TensorCard
from cluster.config.sequences import SequencesConfig
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.model_config import datatype_named, enum_name
from cluster.protocols.triton.sequences import hidden_tensors


def has_signature(config: Any) -> bool:
    """Inputs and outputs are all there: nothing needs to be completed from the artefact."""
    every = [*config.input, *config.output]
    return bool(config.input and config.output) and all(
        tensor.name and tensor.dims and datatype_named(tensor.data_type) for tensor in every
    )


def signature_of(config: Any, findings: Findings) -> SignatureCard | None:
    """Shapes get their batch dimension back: Triton's `dims` leave it out. None when refused.

    What clients see; an artefact of sequences has more (`with_sequence_tensors`).
    """
    _refuse(config, findings)
    ragged = ragged_inputs(config)
    hidden = dict(zip(("input", "output"), hidden_tensors(config), strict=True))
    cards: dict[str, list[TensorCard]] = {"input": [], "output": []}
    for kind, tensors in (("input", config.input), ("output", config.output)):
        for tensor in tensors:
            if tensor.name in hidden[kind]:
                findings.changed(f"{kind}.{tensor.name}", "clients do not see a sequence's state")
                continue
            datatype = datatype_named(tensor.data_type)
            if datatype is None:
                findings.refused(f"{kind}.{tensor.name}.data_type", "no datatype is given")
                continue
            batch = [-1] if config.max_batch_size > 0 else []
            # Its rows lie end to end in the artefact.
            is_ragged = kind == "input" and tensor.name in ragged
            shape = [-1] if is_ragged else [*batch, *tensor.dims]
            labels = tensor.label_filename if kind == "output" else ""
            if PurePosixPath(labels).name != labels:
                findings.refused(
                    f"output.{tensor.name}.label_filename",
                    f"{labels!r} must lie in the model's folder",
                )
                continue
            card = TensorCard(name=tensor.name, datatype=datatype, shape=shape, labels=labels)
            cards[kind].append(card)
    cards["input"] += _batch_inputs(config, findings)
    if findings.has_refused() or not cards["input"] or not cards["output"]:
        return None
    return SignatureCard(inputs=cards["input"], outputs=cards["output"])


def ragged_inputs(config: Any) -> tuple[str, ...]:
    """Those that the artefact takes end to end: one free axis, in a batch."""
    if config.max_batch_size == 0:
        return ()
    return tuple(
        tensor.name
        for tensor in config.input
        if tensor.allow_ragged_batch and list(tensor.dims) == [-1]
    )


def _batch_inputs(config: Any, findings: Findings) -> list[TensorCard]:
    """The artefact's inputs that say where the rows of a ragged batch lie."""
    found: list[TensorCard] = []
    for entry in config.batch_input:
        datatype = datatype_named(entry.data_type)
        is_known = set(entry.source_input) <= set(ragged_inputs(config))
        if datatype is None or len(entry.source_input) != 1 or not is_known:
            findings.refused(
                "batch_input", "describes one input with allow_ragged_batch and dims: [ -1 ]"
            )
            continue
        shape = [-1, 1] if enum_name(entry, "kind") == "BATCH_ITEM_SHAPE" else [-1]
        found += [TensorCard(name=n, datatype=datatype, shape=shape) for n in entry.target_name]
    return found


def with_sequence_tensors(
    signature: SignatureCard, sequences: SequencesConfig, *, is_batched: bool
) -> SignatureCard:
    """The artefact's own tensors: what clients see, controls (one element a row) and state."""
    batch = [-1] if is_batched else []
    controls = [
        TensorCard(name=name, datatype=control.datatype, shape=[*batch, 1])
        for name, control in sequences.controls.items()
    ]
    kept = [(item, [*batch, *item.shape]) for item in sequences.state]
    taken = [TensorCard(name=i.input, datatype=i.datatype, shape=shape) for i, shape in kept]
    given = [TensorCard(name=i.output, datatype=i.datatype, shape=shape) for i, shape in kept]
    return SignatureCard(
        inputs=[*signature.inputs, *controls, *taken], outputs=[*signature.outputs, *given]
    )


def _refuse(config: Any, findings: Findings) -> None:
    for tensor in (*config.input, *config.output):
        if tensor.HasField("reshape"):
            findings.refused(
                f"{tensor.name}.reshape",
                "tensors are not reshaped before or after the artefact: export it with the shape "
                "that clients send",
            )
    for tensor in config.input:
        if tensor.optional:
            findings.changed(f"input.{tensor.name}.optional", "clients must send this input")
        if tensor.is_shape_tensor:
            findings.refused(
                f"input.{tensor.name}.is_shape_tensor", "only TensorRT plans have them"
            )
    if len(config.batch_output):
        findings.refused("batch_output", "outputs of a ragged batch have a row for each item here")
