"""Linear layers as products of two thin ones, where that is less to compute.

Source: singular value decomposition, truncated where the kept singular values hold the energy
asked for (Sainath et al. 2013).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import ConfigError
from cluster.optimization.export.module import export_module
from cluster.optimization.search.recipe import Material

if TYPE_CHECKING:
    from torch import nn


def build(material: Material, folder: Path) -> None:
    """Raises: ConfigError when no layer of the module becomes cheaper."""
    module, example = material.needed_module()
    energy = material.tuning.rank_energy
    thin, num_layers = factorised(module, energy=energy)
    if not num_layers:
        raise ConfigError(
            f"no linear layer is of low rank: {energy:.1%} of their energy need as many numbers as "
            "they have",
            key="recipe",
        )
    if material.lessons is not None:
        from cluster.optimization.training.imitate import imitate, taught_by

        imitate(thin, taught_by(module), material.lessons, material.tuning.schedule)
    export_module(thin, example, folder, name=material.card.name)


def factorised(module: nn.Module, *, energy: float) -> tuple[nn.Module, int]:
    """A copy with its low-rank linear layers in two, and how many these are.

    Raises: ConfigError for an energy that is no share.
    """
    from torch import nn

    if not 0 < energy <= 1:
        raise ConfigError(f"energy is {energy}; allowed: above 0 to 1", key="energy", value=energy)
    thin = copy.deepcopy(module)
    num_layers = 0
    for parent in list(thin.modules()):
        for name, child in list(parent.named_children()):
            made = _in_two(child, energy) if isinstance(child, nn.Linear) else None
            if made is not None:
                setattr(parent, name, made)
                num_layers += 1
    return thin.eval(), num_layers


def _in_two(layer: nn.Linear, energy: float) -> nn.Sequential | None:
    import torch
    from torch import nn

    with torch.no_grad():
        left, values, right = torch.linalg.svd(layer.weight.double(), full_matrices=False)
        share = values.square().cumsum(0) / values.square().sum()
        rank = int((share < energy).sum()) + 1
        out, inner = layer.weight.shape
        if rank * (out + inner) >= out * inner:
            return None
        first = nn.Linear(inner, rank, bias=False)
        second = nn.Linear(rank, out, bias=layer.bias is not None)
        first.weight.copy_(values[:rank, None].sqrt() * right[:rank])
        second.weight.copy_(left[:, :rank] * values[:rank].sqrt())
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)
