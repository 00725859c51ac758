"""What a Hugging Face directory's layers weigh and cost, from its config alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from cluster.config.model_card import ModelCard
from cluster.engines.sharded.families import (
    Family,
    family_of,
    read_config,
    refuse_by_place,
    weight_source,
)
from cluster.engines.sharded.torch_part import DTYPES
from cluster.engines.sharded.weights import CheckpointFiles
from cluster.errors import ConfigError
from cluster.placement.partition import LayeredModel


def directory_layers(card: ModelCard, folder: Path, dtype: str = "float32") -> LayeredModel:
    """Bytes are those of the data type that is computed in; cost counts multiplications a token.

    Raises: ConfigError for a directory of no family.
    """
    directory = folder / card.artefact
    config, family, model = _shape(directory)
    num_layers = int(config.num_hidden_layers)
    itemsize = DTYPES[dtype].itemsize
    layer = [0] * num_layers
    embedding = head = 0
    head_cost = 0.0
    inside = re.compile(rf"{re.escape(family.layers)}\.(\d+)\.")
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found = inside.match(name)
        num = parameter.numel()
        if found is not None:
            layer[int(found[1])] += num * itemsize
        elif any(name.startswith(f"{module}.") for module in family.after):
            head += num * itemsize
            head_cost += num if parameter.dim() > 1 else 0
        else:
            embedding += num * itemsize
    return LayeredModel(
        num_layers=num_layers,
        layer_bytes=tuple(layer),
        embedding_bytes=embedding,
        head_bytes=head,
        layer_cost=tuple(size / itemsize for size in layer),
        head_cost=head_cost,
        splits=family.heads(config),
        vocabulary_size=int(getattr(config, "vocab_size", 0)),
        max_tokens=int(getattr(config, "max_position_embeddings", 0)),
    )


def check_directory(directory: Path) -> None:
    """Do the weights fit the config? Reads the files' headers alone.

    Raises: ConfigError naming the tensor that is missing or of another shape.
    """
    config, family, model = _shape(directory)
    refuse_by_place(config)
    shapes = CheckpointFiles(directory).shapes()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        source = weight_source(family, config, name, shapes.__contains__)
        if source not in shapes:
            raise ConfigError(
                f"{directory}: its safetensors files have no tensor {source!r}, which config.json "
                "asks for",
                file=str(directory),
                key=source,
            )
        if shapes[source] != tuple(parameter.shape):
            raise ConfigError(
                f"{directory}: {source} is {list(shapes[source])}, config.json makes it "
                f"{list(parameter.shape)}",
                file=str(directory),
                key=source,
            )


def _shape(directory: Path) -> tuple[Any, Family, Any]:
    """Config, family, and the model without any weights."""
    config, file = read_config(directory), directory / "config.json"
    family = family_of(config.model_type, file)
    try:
        with torch.device("meta"):
            model = family.model_class(config)
    except Exception as error:
        # Sizes that do not go together: each module says it in its own way.
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"{file}: no model can be made of it: {said}", file=str(file)) from None
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return config, family, model
