"""What a Hugging Face directory's layers weigh and cost, from its config alone."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from cluster.config.model_card import ModelCard
from cluster.engines.sharded.families import family_of, read_config
from cluster.engines.sharded.torch_part import DTYPES
from cluster.placement.partition import LayeredModel


def directory_layers(card: ModelCard, folder: Path, dtype: str = "float32") -> LayeredModel:
    """Bytes are those of the data type that is computed in; cost counts multiplications a token.

    Raises: ConfigError for a directory of no family.
    """
    directory = folder / card.artefact
    config = read_config(directory)
    family = family_of(config.model_type, directory / "config.json")
    with torch.device("meta"):
        model = family.model_class(config)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
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
