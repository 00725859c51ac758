"""Training that feels int8: weights and inputs of products are rounded as int8 rounds them.

torch's own fake-quantise operations carry the gradient past the rounding. The weights come out in
fp32, with the rounding taken into account, and the usual quantiser makes them int8: ONNX Runtime
and NNCF round per output channel, symmetrically, as is felt here (and what batch norms fold into a
channel does not change its rounding).
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cluster.errors import ConfigError
from cluster.optimization.export.module import export_module
from cluster.optimization.precision import int8, openvino
from cluster.optimization.search.recipe import Material
from cluster.optimization.training.imitate import TrainingLog, imitate, taught_by, tensors
from cluster.optimization.training.lessons import Item, Lessons, Schedule

PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TINY = 1e-8


def static(material: Material, folder: Path) -> None:
    with _trained_material(material) as taught:
        int8.static(taught, folder)


def dynamic(material: Material, folder: Path) -> None:
    with _trained_material(material) as taught:
        int8.dynamic(taught, folder)


def by_openvino(material: Material, folder: Path) -> None:
    with _trained_material(material) as taught:
        openvino.int8(taught, folder)


@contextmanager
def _trained_material(material: Material) -> Iterator[Material]:
    """The same material with the trained module and its graph."""
    module, example = material.needed_module()
    if material.lessons is None:
        raise ConfigError("training needs real data to learn from", key="data")
    student, _ = trained(module, material.lessons, material.tuning.schedule)
    with tempfile.TemporaryDirectory() as temporary:
        graph = Path(temporary) / "model.onnx"
        export_module(student, example, graph.parent, name=material.card.name)
        yield replace(material, module=student, onnx=graph)


def trained(
    module: nn.Module, lessons: Lessons, schedule: Schedule
) -> tuple[nn.Module, TrainingLog]:
    """A copy that answers as `module` does even when it is rounded to int8.

    Raises: ConfigError when no layer is a product, as `imitate` otherwise.
    """
    student = copy.deepcopy(module).eval()
    with rounded(student, lessons.items[: schedule.batch_size * 4]):
        log = imitate(student, taught_by(module), lessons, schedule)
    return student, log


@contextmanager
def rounded(module: nn.Module, items: tuple[Item, ...]) -> Iterator[None]:
    """While open, `module` computes as if it were int8; ranges of inputs are those of `items`."""
    layers = [each for each in module.modules() if isinstance(each, PRODUCTS)]
    if not layers:
        raise ConfigError(
            f"{type(module).__name__} has no linear layer and no convolution", key="recipe"
        )
    ranges = _ranges(module, layers, items)
    hooks = []
    try:
        for layer in layers:
            parametrize.register_parametrization(layer, "weight", RoundedWeight())
            if layer in ranges:
                hooks.append(layer.register_forward_pre_hook(RoundedInput(*ranges[layer])))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers:
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


class RoundedWeight(nn.Module):
    """127 steps each way for every output channel, whatever range its weights have by now."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.detach().abs().flatten(1).amax(1).clamp_min(_TINY) / 127
        zeros = torch.zeros(len(weight), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -127, 127)


class RoundedInput:
    """256 steps from the least to the greatest value seen."""

    def __init__(self, low: float, high: float) -> None:
        self.scale = max((high - low) / 255, _TINY)
        self.zero = round(min(255.0, max(0.0, -low / self.scale)))

    def __call__(self, layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first = torch.fake_quantize_per_tensor_affine(given[0], self.scale, self.zero, 0, 255)
        return (first, *given[1:])


def _ranges(
    module: nn.Module, layers: Sequence[nn.Module], items: tuple[Item, ...]
) -> dict[nn.Module, tuple[float, float]]:
    """Least and greatest input of every layer; zero is always within."""
    found: dict[nn.Module, tuple[float, float]] = {}

    def note(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        low, high = found.get(layer, (0.0, 0.0))
        found[layer] = (min(low, float(given[0].min())), max(high, float(given[0].max())))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            for item in items:
                module(*tensors(item))
    finally:
        for hook in hooks:
            hook.remove()
    return found
