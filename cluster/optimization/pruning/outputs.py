"""Which layers decide the width of what a module answers: these keep it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cluster.optimization.export.module import named_outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

ATTENTION_SIZES = ("num_heads", "num_attention_heads", "n_head", "n_heads", "heads")
ATTENTION_NAMES = ("query", "key", "value", "qkv", "q_proj", "k_proj", "v_proj", "c_attn")
_MIXES = ("Convolution", "Addmm", "Mm", "Bmm", "Linear", "Embedding")
"""Where the walk back from an output ends: behind them the width is another one."""


def output_layers(module: nn.Module, inputs: list[Tensor]) -> list[nn.Module]:
    """The layers from which every path to an output goes through nothing that changes channels.

    Found by walking torch's own graph of gradients back from the outputs; of a residual stream
    these are all layers that add to it.
    """
    import torch

    owners = {
        id(parameter): layer
        for layer in module.modules()
        for parameter in layer.parameters(recurse=False)
    }
    with torch.enable_grad():
        weights = [each for each in module.parameters() if each.is_floating_point()]
        before = [each.requires_grad for each in weights]
        for each in weights:
            each.requires_grad_(True)
        outputs = named_outputs(module(*inputs)).values()
        found = {
            id(owners[id(leaf)]): owners[id(leaf)]
            for value in outputs
            for leaf in _first_weights(value.grad_fn)
            if id(leaf) in owners
        }
        for each, had in zip(weights, before, strict=True):
            each.requires_grad_(had)
    return list(found.values())


def attention_layers(module: nn.Module) -> list[nn.Module]:
    """Projections that are cut into heads: their width is written down elsewhere too."""
    from torch import nn

    found: list[nn.Module] = []
    for name, child in module.named_modules():
        if isinstance(child, nn.MultiheadAttention):
            found.append(child)
        is_named = name.rpartition(".")[2] in ATTENTION_NAMES
        if is_named or any(part in ATTENTION_NAMES for part in name.split(".")[-2:]):
            found.append(child)
        if any(isinstance(getattr(child, size, None), int) for size in ATTENTION_SIZES):
            found += [each for each in child.children() if isinstance(each, nn.Linear)]
    return found


def _first_weights(node: Any) -> Iterator[Tensor]:
    """Weights of the first nodes that mix channels, on every path back."""
    waiting, seen = [node], set()
    while waiting:
        each = waiting.pop()
        if each is None or each in seen:
            continue
        seen.add(each)
        if any(mark in type(each).__name__ for mark in _MIXES):
            yield from _weights(each)
            continue
        waiting += [following for following, _ in each.next_functions]


def _weights(node: Any) -> Iterator[Tensor]:
    """The parameters that go into a node straight or transposed."""
    waiting = [(following, 0) for following, _ in node.next_functions]
    while waiting:
        each, depth = waiting.pop()
        if each is None:
            continue
        if hasattr(each, "variable"):
            yield each.variable
        elif depth < 2:
            waiting += [
                (following, depth + 1)
                for following, _ in each.next_functions
                if type(each).__name__ in ("TBackward0", "PermuteBackward0", "TransposeBackward0")
            ]
