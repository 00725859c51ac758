"""A text encoder with fewer layers, begun with those of the larger one: a student to teach."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import ConfigError
from cluster.optimization.encoder import encoder_inputs, load_encoder

if TYPE_CHECKING:
    from torch import nn

_LAYERS = ("encoder.layer", "transformer.layer")
_COUNTS = ("num_hidden_layers", "n_layers")


def thinner_encoder(directory: Path, num_layers: int) -> tuple[nn.Module, tuple[str, ...]]:
    """The encoder of a Hugging Face directory with `num_layers` of its layers, evenly chosen, the
    last among them; and the names of its inputs. **Source:** Sanh et al. 2019 (DistilBERT).

    Raises: ConfigError as `encoder_inputs`, and for a number of layers it cannot be cut to.
    """
    from torch import nn

    inputs = encoder_inputs(directory)
    encoder, _ = load_encoder(directory, inputs)
    model = encoder.model
    assert isinstance(model, nn.Module), "`load_encoder` made it so"
    parent, layers = _layers_of(model)
    if not 0 < num_layers < len(layers):
        raise ConfigError(
            f"{directory} has {len(layers)} layers; a thinner student has 1 to {len(layers) - 1}, "
            f"not {num_layers}",
            key="student",
            value=num_layers,
        )
    kept = [round((i + 1) * len(layers) / num_layers) - 1 for i in range(num_layers)]
    parent.layer = nn.ModuleList(layers[index] for index in kept)
    for name in _COUNTS:
        if hasattr(model.config, name):
            setattr(model.config, name, num_layers)
    return encoder.eval(), inputs


def save_encoder(encoder: nn.Module, like: Path, target: Path) -> None:
    """As a Hugging Face directory, with the tokenizer of `like`."""
    target.mkdir(parents=True, exist_ok=True)
    encoder.model.save_pretrained(target, safe_serialization=True)  # type: ignore[operator, union-attr]
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        if (like / name).is_file():
            shutil.copyfile(like / name, target / name)


def _layers_of(model: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    from torch import nn

    for path in _LAYERS:
        try:
            found = model.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return model.get_submodule(path.rpartition(".")[0]), found
    raise ConfigError(f"{type(model).__name__}: its layers were not found", key="student")
