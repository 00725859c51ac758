"""Single weights set to zero: the tensors keep their size, and no engine here skips the zeros.

For files that are compressed, and to see how much a model has to spare.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import ConfigError
from cluster.optimization.export.module import export_module
from cluster.optimization.pruning.structured import check_ratio
from cluster.optimization.search.recipe import Material

if TYPE_CHECKING:
    from torch import nn


def build_local(material: Material, folder: Path) -> None:
    _build(material, folder, is_global=False)


def build_global(material: Material, folder: Path) -> None:
    _build(material, folder, is_global=True)


def _build(material: Material, folder: Path, *, is_global: bool) -> None:
    module, example = material.needed_module()
    sparse = zeroed(module, ratio=material.tuning.prune_ratio, is_global=is_global)
    if material.lessons is not None:
        from cluster.optimization.training.imitate import imitate, taught_by

        kept = {name: each != 0 for name, each in sparse.named_parameters()}

        def mask(step: int, loss: float) -> None:
            # AdamW moves zeros too; they are put back after every step.
            for name, each in sparse.named_parameters():
                each.data.mul_(kept[name])

        imitate(sparse, taught_by(module), material.lessons, material.tuning.schedule, on_step=mask)
    export_module(sparse, example, folder, name=material.card.name)


def zeroed(module: nn.Module, *, ratio: float, is_global: bool) -> nn.Module:
    """A copy in which the smallest `ratio` of the weights of linear layers and convolutions is
    zero: of each layer, or (`is_global`) of all together. By `torch.nn.utils.prune`.

    Raises: ConfigError for a share that is none and a module without such layers.
    """
    from torch import nn
    from torch.nn.utils import prune

    check_ratio(ratio)
    sparse = copy.deepcopy(module).eval()
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = [each for each in sparse.modules() if isinstance(each, kinds)]
    if not layers:
        raise ConfigError(
            f"{type(module).__name__} has no linear layer and no convolution", key="recipe"
        )
    if is_global:
        prune.global_unstructured(
            [(each, "weight") for each in layers],
            pruning_method=prune.L1Unstructured,
            amount=ratio,
        )
    for each in layers:
        if not is_global:
            prune.l1_unstructured(each, "weight", amount=ratio)  # type: ignore[no-untyped-call]
        prune.remove(each, "weight")  # type: ignore[no-untyped-call]
        each.weight.requires_grad_(False)
    return sparse


def share_of_zeros(module: nn.Module) -> float:
    """Of all weights with at least two axes."""
    weights = [each for each in module.parameters() if each.ndim > 1]
    return sum(int((each == 0).sum()) for each in weights) / sum(each.numel() for each in weights)
