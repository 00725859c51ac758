"""What the commands of the model store have in common."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cluster.config.model_card import ModelCard, TensorCard
from cluster.config.store import ModelStore, default_root
from cluster.errors import ConfigError

Store = Annotated[
    Path | None,
    typer.Option(
        "--store", help="The store's folder \\[default: $SQUADRON_MODEL_STORE, else ./models]."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


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
