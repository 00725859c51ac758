"""Profiles of what runs a model in this process: the function that a server's jobs call too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cluster.client.backend import Backend, Generates
from cluster.client.embedded import EngineBackend
from cluster.client.measure.samples import sample_row
from cluster.engines.table import default_engine
from cluster.errors import Unsupported
from cluster.optimization.intake.model import GivenModel
from cluster.optimization.intake.random_inputs import random_items
from cluster.optimization.profile.collect import profile
from cluster.optimization.profile.report import ProfileReport
from cluster.tensors import Array


def profile_backend(
    backend: Backend,
    inputs: Mapping[str, Array] | None,
    num_calls: int,
    *,
    is_raw: bool = False,
) -> ProfileReport:
    """`inputs`: as callers give them, with `is_raw` as the artefact takes them; None: a random row.

    Raises: Unsupported for what counts nothing; as `cluster.optimization.profile.collect.profile`.
    """
    if isinstance(backend, EngineBackend):
        return _of_engine(backend, inputs, num_calls, is_raw=is_raw)
    if isinstance(backend, Generates):
        from cluster.client.measure.language_profile import profile_language
        from cluster.client.staged.language import LanguageBackend

        if isinstance(backend, LanguageBackend):
            return profile_language(backend, inputs, num_calls)
    return _of_module(backend, sample_row(backend) if inputs is None else inputs, num_calls)


def _of_engine(
    backend: EngineBackend,
    inputs: Mapping[str, Array] | None,
    num_calls: int,
    *,
    is_raw: bool,
) -> ProfileReport:
    card, folder = backend.variant.card, backend.variant.folder
    if is_raw:
        graph = folder / card.artefact if card.format == "onnx" else None
        row = random_items(card, 1, graph=graph)[0] if inputs is None else dict(inputs)
    else:
        row = backend.prepare(sample_row(backend) if inputs is None else inputs)
    return profile(
        GivenModel(name=card.name, sha256="", card=card, folder=folder),
        row,
        engine=backend.variant.engine or default_engine(card.format),
        num_calls=num_calls,
        threads=backend.threads,
    )


def _of_module(backend: Backend, inputs: Mapping[str, Array], num_calls: int) -> ProfileReport:
    from cluster.client.torch.module import ModuleBackend
    from cluster.config.model_card import ModelCard, SignatureCard, TensorCard

    if not isinstance(backend, ModuleBackend):
        raise Unsupported(
            f"{backend.name}: profiled can be models of onnxruntime, openvino and torch, and a "
            "language model's Hugging Face directory"
        )
    cards = [
        TensorCard(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))
        for spec in backend.signature.inputs
    ]
    card = ModelCard(
        name=backend.name, format="fake", signature=SignatureCard(inputs=cards, outputs=cards)
    )
    given = GivenModel(
        name=backend.name,
        sha256="",
        card=card,
        folder=Path(),
        module=backend.module,
        example=backend.example,
    )
    ordered = {name: inputs[name] for name in backend.example}
    return profile(given, ordered, num_calls=num_calls, threads=backend.threads)
