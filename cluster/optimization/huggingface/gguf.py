"""A quantised GGUF file as an ordinary Hugging Face directory with bfloat16 weights."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

from cluster.config.model_card import ModelCard
from cluster.optimization.archive import extract_directory
from cluster.optimization.huggingface.directory import card_of
from cluster.optimization.sources import GgufRecipe
from cluster.optimization.workshop import Workshop

_OF_THE_FILE = ("quantization_config", "_name_or_path", "name_or_path", "transformers_version")


def build(
    name: str, version: str, recipe: GgufRecipe, workshop: Workshop, folder: Path
) -> ModelCard:
    """Fill `folder` with config, weights and tokenizer.

    The weights were 4 bits wide and are not widened back into the original by this: the card's
    provenance says so.
    """
    member = Path(recipe.weights.path)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        archive = workshop.archive(recipe.weights.archive)
        extract_directory(archive, str(member.parent), directory)
        with workshop.progress.step(f"{name}: widen the weights"):
            convert(directory, member.name, folder)
    return card_of(
        folder,
        name=name,
        version=version,
        provenance=workshop.provenance(
            recipe.weights.archive,
            file=recipe.weights.path,
            recipe="GGUF -> float32 -> bfloat16 safetensors",
            notes="widened from 4-bit weights (Q4_1): not the original model's quality",
        ),
    )


def convert(directory: Path, file: str, folder: Path) -> None:
    """Write the model of `directory/file` to `folder`, its weights in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # Its bar for the tensors would break into ours, and no setting silences it.
    with contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(
            str(directory), gguf_file=file, trust_remote_code=False
        )
        loaded = AutoModelForCausalLM.from_pretrained(
            str(directory), gguf_file=file, dtype=torch.float32, trust_remote_code=False
        )
    # The loaded object counts as quantised and refuses to be saved; a fresh one of its config
    # takes the same weights.
    values = {k: v for k, v in loaded.config.to_dict().items() if k not in _OF_THE_FILE}
    values["architectures"] = ["LlamaForCausalLM"]
    # Some versions of transformers have types for this, others have none.
    make: Any = LlamaForCausalLM
    model = make(LlamaConfig(**values))
    model.load_state_dict(loaded.state_dict())
    model.to(torch.bfloat16).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    for written in folder.iterdir():
        # safetensors makes its files private; a store is read by every process that serves.
        written.chmod(0o644)
