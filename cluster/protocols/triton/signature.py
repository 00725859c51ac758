"""Triton's `input` and `output` as the signature of a model card."""

from __future__ import annotations

from typing import Any

from cluster.config.model_card import SignatureCard, TensorCard
from cluster.config.sequences import SequencesConfig
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.model_config import datatype_named
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
            shape = [*batch, *tensor.dims]
            labels = tensor.label_filename if kind == "output" else ""
            card = TensorCard(name=tensor.name, datatype=datatype, shape=shape, labels=labels)
            cards[kind].append(card)
    if findings.has_refused() or not cards["input"] or not cards["output"]:
        return None
    return SignatureCard(inputs=cards["input"], outputs=cards["output"])


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
    for field in ("batch_input", "batch_output"):
        if len(getattr(config, field)):
            findings.refused(field, "inputs that describe a ragged batch are not generated")
