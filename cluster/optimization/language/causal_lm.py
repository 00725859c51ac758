"""Generating language models: a Hugging Face directory in the store, added or made by a recipe.

Serving reads the safetensors files, `config.json`, `tokenizer.json` and the chat template; every
engine opens the same folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.config.model_card import ModelCard, Provenance, SignatureCard, TensorCard
from cluster.config.store import CARD_FILE
from cluster.optimization.huggingface.directory import precision_of
from cluster.optimization.huggingface.families import read_config
from cluster.optimization.huggingface.files import weights_artefact
from cluster.optimization.sources import CausalLmRecipe
from cluster.optimization.workshop import Workshop


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


def causal_lm_card(folder: Path, *, name: str, version: str, provenance: Provenance) -> ModelCard:
    """The card of a Hugging Face directory that generates text: text in, pieces of text out."""
    return ModelCard(
        name=name,
        version=version,
        format="causal_lm",
        # Weights in several files have an index of them, which is what is checked.
        artefact=weights_artefact(folder),
        precision=precision_of(read_config(folder)),
        batched=False,
        decoupled=True,
        signature=SignatureCard(
            inputs=[TensorCard(name="text_input", datatype="BYTES", shape=[1])],
            outputs=[TensorCard(name="text_output", datatype="BYTES", shape=[1])],
        ),
        provenance=provenance,
    )
