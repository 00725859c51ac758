"""`squadron models add`, and what the other commands of the model store have in common with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.config.model_card import ModelCard, TensorCard
from cluster.config.store import ModelStore, default_root
from cluster.errors import ConfigError
from cluster.tensors import TensorSpec

Store = Annotated[
    Path | None,
    typer.Option(
        "--store", help="The store's folder \\[default: $SQUADRON_MODEL_STORE, else ./models]."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="What a Hugging Face folder becomes: huggingface (its safetensors files as they are; "
        "can be cut into shards), causal_lm (text in, text out) or onnx (an encoder, exported) "
        "\\[default: by what is in it].",
    ),
]


def add(
    path: Annotated[
        str,
        typer.Argument(
            help=".onnx, TorchScript .pt, torch.export .pt2, a Hugging Face folder, file.py:Class "
            "or module:Class."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="The model's name \\[default: the file's].")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="A whole number \\[default: the next free one].")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME:DATATYPE:DIMS, in order, where the file does not say."),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", help="NAME:DATATYPE:DIMS, in order, where the file does not say."),
    ] = None,
    format_: Format = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Put a model of your own into the store.

    Examples:

      squadron models add my_model.onnx

      squadron models add traced.pt --input x:FP32:-1,4 --output y:FP32:-1,2

      squadron models add ./my-bert --name encoder               an encoder, exported to ONNX

      squadron models add ./my-gpt2 --format huggingface         token ids to logits, or to tokens

      squadron models add ./my-vit                               pictures to labels

    Folders of the Llama, Mistral, Qwen2, Qwen3, GPT-2, BERT and ViT families can be cut into shards
    (--format huggingface); any causal language model with a tokenizer.json generates text. Weights
    are read from safetensors files; nothing is unpickled.

    More examples:

      squadron models add my_code.py:Double --input x:FP32:-1,4 --output y:FP32:-1,4

    A class of your own needs these two methods; inputs and outputs are NumPy arrays by name:

    \b
      class Double:
          def load(self, context):  # .folder .device .threads .options .signature
              self.factor = 2
    \b
          def infer(self, inputs):
              return {"y": inputs["x"] * self.factor}
    """
    from cluster.cli.progress import RichProgress
    from cluster.optimization.add import add_model

    models = ModelStore(root(store))
    with mendable(as_json=as_json), RichProgress() as progress:
        card = add_model(
            path,
            models,
            name,
            version,
            inputs=inputs,
            outputs=outputs,
            format_=format_ or "",
            progress=progress,
        )
    if as_json:
        print(json.dumps(facts(card, models)))
        return
    _show(card, models)


def _show(card: ModelCard, models: ModelStore) -> None:
    """Where it is, what it takes and gives, what to write in a config."""
    from cluster.optimization.huggingface.intake import ways_to_serve

    console = Console(highlight=False, soft_wrap=True, markup=False)
    folder = models.folder(card.name, card.version)
    console.print(f"{card.name} version {card.version} is in {folder}")
    public = card.public_signature()
    given = ", ".join(_said(spec) for spec in public.inputs)
    made = ", ".join(_said(spec) for spec in public.outputs)
    console.print(f"format {card.format}: {given} -> {made}")
    console.print("in a config, below variants:")
    for line in ways_to_serve(card, folder):
        console.print(f"  {line}")


def _said(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.datatype} {list(spec.shape)}"


def root(store: Path | None) -> Path:
    return store if store is not None else default_root()


def facts(card: ModelCard, models: ModelStore) -> dict[str, object]:
    return {
        "name": card.name,
        "version": card.version,
        "format": card.format,
        "precision": card.precision,
        "folder": str(models.folder(card.name, card.version)),
        "artefact": card.artefact,
        "artefact_bytes": num_bytes(card, models),
        "sha256": card.sha256,
        "inputs": [_tensor(tensor) for tensor in card.signature.inputs],
        "outputs": [_tensor(tensor) for tensor in card.signature.outputs],
    }


def _tensor(card: TensorCard) -> dict[str, object]:
    return {"name": card.name, "datatype": card.datatype, "shape": list(card.shape)}


def num_bytes(card: ModelCard, models: ModelStore) -> int:
    folder = models.folder(card.name, card.version)
    if card.format in ("huggingface", "causal_lm"):
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    artefact = folder / card.artefact
    return artefact.stat().st_size if card.artefact and artefact.is_file() else 0


@contextmanager
def mendable(*, as_json: bool) -> Iterator[None]:
    """What the operator can mend is one message and exit code 2, whoever runs the command; who
    reads standard output gets an object in every case."""
    try:
        yield
    except ConfigError as error:
        if as_json:
            print(json.dumps({"error": error.message}))
        print(f"squadron: {error.message}", file=sys.stderr)
        raise typer.Exit(2) from None
