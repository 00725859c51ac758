"""Sentence embeddings of a fetched encoder, for training and for the accuracy gates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cluster.config.model_card import MeanPoolPostprocess, ModelCard
from cluster.errors import ConfigError
from cluster.processing.pipeline import Pipeline
from cluster.tensors import Array, bytes_array

BATCH_SIZE = 32


def embed(card: ModelCard, folder: Path, texts: Sequence[str], *, threads: int = 0) -> Array:
    """With the processing that serving uses. Shapes: FP32 `[len(texts), hidden]`.

    Texts are batched by length, so that a short one is not padded to the longest of all.
    `threads` 0 leaves the number to onnxruntime.

    Raises: ConfigError when the model is not a text encoder in ONNX.
    """
    import onnxruntime

    if not isinstance(card.postprocess, MeanPoolPostprocess) or card.format != "onnx":
        raise ConfigError(f"{card.name} is not a text encoder in ONNX", key="encoder")
    pipeline = Pipeline(card, folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        folder / card.artefact, sess_options=options, providers=["CPUExecutionProvider"]
    )
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    vectors: dict[int, Array] = {}
    for start in range(0, len(by_length), BATCH_SIZE):
        indices = by_length[start : start + BATCH_SIZE]
        batch = bytes_array([texts[index].encode() for index in indices], (len(indices),))
        tokens = pipeline.merge([pipeline.prepare({"text": batch})])
        outputs = session.run([card.postprocess.input], tokens)
        found = pipeline.finish({card.postprocess.input: outputs[0]}, tokens, {"embedding"})
        vectors.update(zip(indices, found["embedding"], strict=True))
    return np.stack([vectors[index] for index in range(len(texts))])
