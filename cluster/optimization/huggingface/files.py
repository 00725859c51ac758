"""The files of a Hugging Face directory that serving reads; nothing of it is unpickled or run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cluster.config.store import CARD_FILE
from cluster.errors import ConfigError
from cluster.optimization.progress import Progress

SETTINGS = (".json", ".jinja", ".txt", ".model")
"""Configuration, tokenizer, chat template."""


def weight_files(directory: Path) -> tuple[Path, ...]:
    """Raises: ConfigError for a directory without safetensors weights."""
    from cluster.engines.sharded.weights import CheckpointFiles

    return CheckpointFiles(directory).files


def weights_artefact(directory: Path) -> str:
    """The one file of the weights, or the index of several."""
    from cluster.engines.sharded.weights import INDEX, SINGLE

    return INDEX if (directory / INDEX).is_file() else SINGLE


def check_weights(directory: Path) -> None:
    """Do the weights fit the config? Reads headers alone.

    Raises: ConfigError naming the tensor that is missing or of another shape.
    """
    from cluster.engines.sharded.options import check_transformers

    check_transformers()
    from cluster.engines.sharded.hf_layers import check_directory

    check_directory(directory)


def copy_directory(source: Path, folder: Path, progress: Progress) -> None:
    """The weights that are read, and what small text files say of them: other files, as weights of
    another format or code, stay behind."""
    settings = [
        file
        for file in sorted(source.iterdir())
        if file.is_file() and file.suffix in SETTINGS and file.name != CARD_FILE
    ]
    for file in (*settings, *weight_files(source)):
        if file.suffix == ".safetensors":
            with progress.step(f"copy {file.name}, {file.stat().st_size / 1e6:.0f} MB"):
                shutil.copyfile(file, folder / file.name)
        else:
            shutil.copyfile(file, folder / file.name)


def read_json(file: Path) -> dict[str, object]:
    """Raises: ConfigError for a file that holds no object."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON: {error}", file=str(file)) from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: not an object", file=str(file))
    return found
