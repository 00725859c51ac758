"""Channels and hidden units taken out whole: the tensors shrink, every engine is faster for it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import ConfigError
from cluster.optimization.export.module import export_module
from cluster.optimization.precision.quiet import quiet
from cluster.optimization.pruning.outputs import attention_layers, output_layers
from cluster.optimization.search.recipe import Material
from cluster.tensors import Array

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

MULTIPLE = 8
"""Widths stay multiples of this: vector instructions and int8 kernels work in such blocks."""
MOST = 0.9
"""No layer loses more than this share when the least important of all layers go."""


def build_local(material: Material, folder: Path) -> None:
    """The same share of every layer."""
    _build(material, folder, is_global=False)


def build_global(material: Material, folder: Path) -> None:
    """The least important channels of all layers together."""
    _build(material, folder, is_global=True)


def _build(material: Material, folder: Path, *, is_global: bool) -> None:
    module, example = material.needed_module()
    thin = pruned(module, example, ratio=material.tuning.prune_ratio, is_global=is_global)
    if material.lessons is not None:
        from cluster.optimization.training.imitate import imitate, recalibrate, taught_by

        recalibrate(thin, material.lessons)
        imitate(thin, taught_by(module), material.lessons, material.tuning.schedule)
    export_module(thin, example, folder, name=material.card.name)


def pruned(
    module: nn.Module, example: Mapping[str, Array], *, ratio: float, is_global: bool
) -> nn.Module:
    """A copy without the least important `ratio` of its channels, by the size of their weights.

    Widths of the outputs, of what is added to a residual stream that becomes an output, and of
    projections that are cut into heads stay. **Source:** Fang et al. 2023, DepGraph (the library
    torch-pruning), group magnitude importance.

    Raises: ConfigError for a share that is none, a module in which nothing can be taken out, and
    one that does not run any more without it.
    """
    import torch
    import torch_pruning as tp

    from cluster.optimization.training.imitate import tensors

    check_ratio(ratio)
    thin = copy.deepcopy(module).eval()
    inputs = tensors(dict(example))
    before = num_weights(thin)
    try:
        for each in thin.parameters():
            each.requires_grad_(each.is_floating_point())
        with quiet():
            pruner = tp.pruner.BasePruner(
                thin,
                tuple(inputs),
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratio,
                max_pruning_ratio=max(MOST, ratio),
                global_pruning=is_global,
                ignored_layers=[*output_layers(thin, inputs), *attention_layers(thin)],
                round_to=MULTIPLE,
            )
            pruner.step()
        for each in thin.parameters():
            each.grad = None
            each.requires_grad_(False)
        with torch.no_grad():
            thin(*inputs)
    except ConfigError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{type(module).__name__} does not run without these channels: {lines[0][:300]}",
            key="recipe",
        ) from None
    if num_weights(thin) == before:
        raise ConfigError(
            f"{type(module).__name__}: no layer has {MULTIPLE} channels to spare that nothing else "
            "depends on",
            key="recipe",
        )
    return thin


def check_ratio(ratio: float) -> None:
    """Raises: ConfigError for what is no share below one."""
    if not 0 < ratio < 1:
        raise ConfigError(
            f"prune_ratio is {ratio}; allowed: above 0, below 1", key="prune_ratio", value=ratio
        )


def num_weights(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())
