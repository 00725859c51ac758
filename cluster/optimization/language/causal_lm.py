"""Generating language models: a Hugging Face directory in the store, from one or from a GGUF file.

Serving reads `model.safetensors`, `config.json`, `tokenizer.json` and the chat template; every
engine opens the same folder.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from cluster.config.model_card import ModelCard, Provenance, SignatureCard, TensorCard
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
_NOT_OURS = {
    "quantization_config",
    "_name_or_path",
    "_model_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
}
"""Entries of a GGUF's configuration that are not true of what it is turned into."""


def build(
    name: str, version: str, recipe: CausalLmRecipe, workshop: Workshop, folder: Path
) -> ModelCard:
    """Fill `folder` with a Hugging Face directory made of an archive's GGUF file."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(recipe.gguf.path).name
        (Path(temporary) / file).write_bytes(workshop.read(recipe.gguf))
        with workshop.progress.step(f"{name}: GGUF to safetensors (bfloat16)"):
            convert_gguf(Path(temporary), file, folder)
    return causal_lm_card(
        folder,
        name=name,
        version=version,
        provenance=workshop.provenance(
            recipe.gguf.archive,
            file=recipe.gguf.path,
            recipe="weights widened from 4 bits (Q4_1) to bfloat16; tokenizer from the GGUF",
            notes="not the original's weights: do not quote the original's scores",
        ),
    )


def convert_gguf(directory: Path, file: str, folder: Path) -> None:
    """Write the model of `directory/file` as bfloat16 safetensors with its tokenizer to `folder`.

    `save_pretrained` refuses a model that was read from GGUF ("quantized"), so its weights move
    into a fresh one of the same configuration, and all keys must match.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # Its bar for the tensors would break into ours, and no setting silences it.
    with contextlib.redirect_stderr(io.StringIO()):
        tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=file, local_files_only=True)
        read = AutoModelForCausalLM.from_pretrained(
            directory, gguf_file=file, dtype=torch.float32, local_files_only=True
        )
    kept = {key: value for key, value in read.config.to_dict().items() if key not in _NOT_OURS}
    config = type(read.config)(**kept)
    fresh: Any = type(read)(config)
    fresh.load_state_dict(read.state_dict())
    fresh.to(dtype=torch.bfloat16)
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Written as private; a store is read by every process that serves from it.
    (folder / ARTEFACT).chmod(0o644)


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
