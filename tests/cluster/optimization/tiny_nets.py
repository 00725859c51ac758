"""Networks of a few thousand parameters, as torch modules and as ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from cluster.config.model_card import ModelCard
from cluster.optimization.export.module import export_module
from cluster.tensors import Array


class TinyCnn(nn.Module):
    """`[batch, 3, 16, 16]` -> scores of ten classes."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1, stride=2)
        self.head = nn.Linear(2 * width, 10)
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(image)))
        x = torch.relu(self.second(x))
        scores: torch.Tensor = self.head(x.mean((2, 3)))
        return scores

    def example_inputs(self) -> dict[str, Array]:
        return {"image": np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)}


class TinyMlp(nn.Module):
    """`[batch, 64]` -> scores of ten classes; products large enough to be quantised in blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
        )
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(x)
        return scores

    def example_inputs(self) -> dict[str, Array]:
        return {"x": np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)}


def exported(module: nn.Module, folder: Path, name: str = "tiny") -> ModelCard:
    return export_module(module, module.example_inputs(), folder, name=name)  # type: ignore[operator]


def rows(module: nn.Module, num: int, seed: int = 5) -> dict[str, Array]:
    """`num` random rows of the module's input."""
    draw = np.random.default_rng(seed)
    example = module.example_inputs()  # type: ignore[operator]
    return {
        name: draw.normal(size=(num, *array.shape[1:])).astype(np.float32)
        for name, array in example.items()
    }


def best_classes(module: nn.Module, inputs: dict[str, Array]) -> Array:
    with torch.no_grad():
        answer = module(*(torch.from_numpy(array) for array in inputs.values()))
    classes: Array = answer.argmax(-1).numpy()
    return classes
