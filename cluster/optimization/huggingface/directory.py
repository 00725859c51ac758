"""Hugging Face directories of an archive as models of the store, weights as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.config.model_card import ModelCard, Provenance, SignatureCard, TensorCard
from cluster.errors import ConfigError
from cluster.optimization.archive import extract_directory
from cluster.optimization.sources import DirectoryRecipe
from cluster.optimization.workshop import Workshop


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
    """The card of a Hugging Face directory that Squadron runs itself, as it is.

    Raises: ConfigError for a `model_type` that no family of `cluster.engines.sharded` has.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return ModelCard(
        name=name,
        version=version,
        format="huggingface",
        artefact=".",
        precision="bf16" if _dtype(config) == "bfloat16" else "fp32",
        signature=_signature(config, folder),
        provenance=provenance or Provenance(),
    )


def _dtype(config: dict[str, Any]) -> str:
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _signature(config: dict[str, Any], folder: Path) -> SignatureCard:
    match config.get("model_type"):
        case "llama" | "gpt2":
            inputs = [_ids("input_ids")]
            shape = [-1, -1, int(config["vocab_size"])]
            outputs = [TensorCard(name="logits", datatype="FP32", shape=shape)]
        case "bert":
            inputs = [_ids(x) for x in ("input_ids", "attention_mask", "token_type_ids")]
            shape = [-1, -1, int(config["hidden_size"])]
            outputs = [TensorCard(name="last_hidden_state", datatype="FP32", shape=shape)]
        case "vit":
            side = int(config.get("image_size", 224))
            image = [-1, int(config.get("num_channels", 3)), side, side]
            inputs = [TensorCard(name="pixel_values", datatype="FP32", shape=image)]
            classes = len(config.get("id2label") or {}) or 2
            outputs = [TensorCard(name="logits", datatype="FP32", shape=[-1, classes])]
        case other:
            allowed = "llama, gpt2, bert, vit"
            raise ConfigError(
                f"{folder / 'config.json'}: model_type {other!r} is of no family that is run from "
                f"its directory; allowed: {allowed}",
                file=str(folder / "config.json"),
                key="model_type",
                value=str(other),
                allowed=allowed,
            )
    return SignatureCard(inputs=inputs, outputs=outputs)


def _ids(name: str) -> TensorCard:
    return TensorCard(name=name, datatype="INT64", shape=[-1, -1])
