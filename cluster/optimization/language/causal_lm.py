"""Generating language models: a Hugging Face directory in the store, added or made by a recipe.

Serving reads `model.safetensors`, `config.json`, `tokenizer.json` and the chat template; every
engine opens the same folder.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

from cluster.config.model_card import ModelCard, Provenance, SignatureCard, TensorCard
from cluster.config.store import CARD_FILE
from cluster.errors import ConfigError
from cluster.optimization.sources import CausalLmRecipe
from cluster.optimization.workshop import Workshop

ARTEFACT = "model.safetensors"

_PRECISIONS: dict[str, Literal["fp32", "fp16", "bf16"]] = {
    "torch.float32": "fp32",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
}


def build(
    name: str, version: str, recipe: CausalLmRecipe, workshop: Workshop, folder: Path
) -> ModelCard:
    """Fill `folder` with a fetched model's directory, to be served as one that generates text.

    Its files are the same ones, by another name: the weights are on the disk once.
    """
    source = workshop.store.card(recipe.source)
    with workshop.progress.step(f"{name}: the files of {recipe.source}"):
        _share(workshop.store.folder(recipe.source) / source.artefact, folder)
    return causal_lm_card(folder, name=name, version=version, provenance=source.provenance)


def _share(directory: Path, folder: Path) -> None:
    for file in directory.iterdir():
        if not file.is_file() or file.name == CARD_FILE:
            continue
        try:
            (folder / file.name).hardlink_to(file)
        except OSError:
            # A file system without hard links.
            shutil.copyfile(file, folder / file.name)


def add_directory(source: Path, folder: Path, *, name: str, version: str) -> ModelCard:
    """Copy a Hugging Face directory of a causal language model into the version's folder.

    Raises: ConfigError for a directory without what serving needs.
    """
    for needed in ("tokenizer.json", ARTEFACT):
        if not (source / needed).is_file():
            raise ConfigError(
                f"{source}: no {needed}; a language model is added with config.json, {ARTEFACT} "
                "(one file, or sharded with an index and one of that name) and tokenizer.json",
                file=str(source / needed),
            )
    for file in source.iterdir():
        if file.is_file() and file.suffix in {".safetensors", ".json", ".jinja", ".txt", ".model"}:
            shutil.copyfile(file, folder / file.name)
    origin = Provenance(file=str(source), recipe="added")
    return causal_lm_card(folder, name=name, version=version, provenance=origin)


def is_causal_lm(directory: Path) -> bool:
    """Whether a Hugging Face directory says that it generates text."""
    config = directory / "config.json"
    if not config.is_file():
        return False
    architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    return any(str(each).endswith("ForCausalLM") for each in architectures)


def causal_lm_card(folder: Path, *, name: str, version: str, provenance: Provenance) -> ModelCard:
    """The card of a Hugging Face directory that generates text: text in, pieces of text out."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return ModelCard(
        name=name,
        version=version,
        format="causal_lm",
        artefact=ARTEFACT,
        precision=_PRECISIONS.get(dtype, "mixed"),
        batched=False,
        decoupled=True,
        signature=SignatureCard(
            inputs=[TensorCard(name="text_input", datatype="BYTES", shape=[1])],
            outputs=[TensorCard(name="text_output", datatype="BYTES", shape=[1])],
        ),
        provenance=provenance,
    )
