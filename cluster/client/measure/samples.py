"""One row of inputs for a model that nobody gave data for."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from cluster.client.backend import Backend
from cluster.client.embedded import EngineBackend
from cluster.client.inputs import named_inputs
from cluster.config.model_card import ModelCard, SignatureCard, TensorCard
from cluster.errors import ConfigError
from cluster.optimization.intake.random_inputs import random_items
from cluster.tensors import Array, Signature, TensorSpec, bytes_array

SENTENCE = b"The film begins slowly, finds its feet in the second act and ends where nobody looked."
PHOTO_SIDE = 256


def sample_row(backend: Backend, data: Any = None) -> dict[str, Array]:
    """`data` as `predict` takes it; else random numbers of the right shapes, for text a sentence,
    for pictures one of noise.

    Raises: ConfigError for other BYTES inputs, whose content nobody can guess.
    """
    if data is not None:
        return named_inputs(data, {}, backend.signature)
    example = getattr(backend, "example", None)
    if example is not None:
        return dict(example)
    numbers = tuple(spec for spec in backend.signature.inputs if spec.datatype != "BYTES")
    texts = tuple(spec for spec in backend.signature.inputs if spec.datatype == "BYTES")
    found = {spec.name: _bytes(spec) for spec in texts}
    if numbers:
        found |= _numbers(numbers, backend)
    return found


def _numbers(specs: tuple[TensorSpec, ...], backend: Backend) -> dict[str, Array]:
    cards = [TensorCard(name=s.name, datatype=s.datatype, shape=list(s.shape)) for s in specs]
    card = ModelCard(
        name="sample",
        format="fake",
        batched=backend.is_batched,
        signature=SignatureCard(inputs=cards, outputs=cards),
    )
    graph: Path | None = None
    if isinstance(backend, EngineBackend) and backend.variant.card.format == "onnx":
        graph = backend.variant.folder / backend.variant.card.artefact
    (row,) = random_items(card, 1, graph=graph)
    return row


def _bytes(spec: TensorSpec) -> Array:
    shape = (1,) * len(spec.shape)
    match spec.name:
        case "text":
            return bytes_array([SENTENCE], shape)
        case "image":
            return bytes_array([_picture()], shape)
        case _:
            raise ConfigError(
                f"input {spec.name!r} is BYTES: what it holds cannot be guessed; give data, one "
                "row as predict takes it",
                key="data",
            )


def _picture() -> bytes:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (PHOTO_SIDE, PHOTO_SIDE, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, format="PNG")
    return stream.getvalue()


def is_numeric(signature: Signature) -> bool:
    return all(spec.datatype != "BYTES" for spec in signature.inputs)
