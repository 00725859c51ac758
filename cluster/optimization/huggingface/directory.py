"""Hugging Face directories as models of the store, weights as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cluster.config.model_card import ModelCard, Provenance
from cluster.errors import ConfigError
from cluster.optimization.archive import extract_directory
from cluster.optimization.huggingface.families import (
    CARDS,
    WHERE_FAMILIES_ARE,
    Config,
    read_config,
)
from cluster.optimization.sources import DirectoryRecipe
from cluster.optimization.workshop import Workshop

_Precision = Literal["fp32", "fp16", "bf16", "mixed"]
_PRECISIONS: dict[str, _Precision] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def build(
    name: str, version: str, recipe: DirectoryRecipe, workshop: Workshop, folder: Path
) -> ModelCard:
    """Fill `folder` with the directory's files."""
    archive = recipe.directory.archive
    extract_directory(workshop.archive(archive), recipe.directory.path, folder)
    provenance = workshop.provenance(
        archive, file=recipe.directory.path, recipe="the files as they are"
    )
    return card_of(folder, name=name, version=version, provenance=provenance)


def card_of(
    folder: Path, *, name: str, version: str = "1", provenance: Provenance | None = None
) -> ModelCard:
    """The card of a Hugging Face directory that Squadron runs itself, as it is: its own tensors.

    Raises: ConfigError for a `model_type` that no family of `cluster.engines.sharded` has.
    """
    config, file = read_config(folder), folder / "config.json"
    family = CARDS.get(str(config.get("model_type")))
    if family is None:
        allowed = ", ".join(CARDS)
        raise ConfigError(
            f"{file}: model_type {config.get('model_type')!r} is of no family that is run from its "
            f"directory; allowed: {allowed} ({WHERE_FAMILIES_ARE} says how to add one)",
            file=str(file),
            key="model_type",
            value=str(config.get("model_type")),
            allowed=allowed,
        )
    return ModelCard(
        name=name,
        version=version,
        format="huggingface",
        artefact=".",
        precision=precision_of(config),
        signature=family.signature(config, file),
        provenance=provenance or Provenance(),
    )


def precision_of(config: Config) -> _Precision:
    """Of the weights in the files."""
    kept = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return _PRECISIONS.get(kept.removeprefix("torch."), "mixed")
