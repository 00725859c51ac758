"""A torch module compiled ahead of time by inductor: a package of native code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cluster.errors import ConfigError
from cluster.optimization.precision.quiet import quiet
from cluster.optimization.search.recipe import Material
from cluster.tensors import Array

if TYPE_CHECKING:
    import torch
    from torch import nn


def fp32(material: Material, folder: Path) -> None:
    compile_package(*_module(material), folder / "model.pt2", batched=material.card.batched)


def on_cuda(material: Material, folder: Path) -> None:
    """fp32 for the GPU that is here. Raises: ConfigError when there is none."""
    import copy

    import torch

    if not torch.cuda.is_available():
        raise ConfigError("torch sees no CUDA device", key="recipe")
    module, example = _module(material)
    moved = copy.deepcopy(module).to("cuda")
    compile_package(
        moved, example, folder / "model.pt2", batched=material.card.batched, device="cuda"
    )


def bf16(material: Material, folder: Path) -> None:
    """Products in bf16 by autocast; inputs, outputs and weights stay as they are."""
    import torch

    module, example = _module(material)

    class Autocast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *inputs: torch.Tensor) -> object:
            with torch.autocast("cpu", torch.bfloat16):
                answer = self.inner(*inputs)
            if isinstance(answer, torch.Tensor):
                return answer.float()
            return tuple(each.float() if each.is_floating_point() else each for each in answer)

    compile_package(Autocast().eval(), example, folder / "model.pt2", batched=material.card.batched)


def compile_package(
    module: nn.Module,
    example: Mapping[str, Array],
    target: Path,
    *,
    batched: bool,
    device: str = "cpu",
) -> None:
    """Raises: ConfigError when torch cannot export or compile it (no C++ compiler, say)."""
    import torch

    inputs = tuple(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in example.values())
    shapes = None
    if batched:
        batch = torch.export.Dim("batch", min=1, max=1024)
        inputs = tuple(torch.cat([each, each]) for each in inputs)
        shapes = (
            (tuple({0: batch} for _ in inputs),)
            if _is_variadic(module)
            else tuple({0: batch} for _ in inputs)
        )
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(module, inputs, dynamic_shapes=shapes)
            torch._inductor.aoti_compile_and_package(
                program,
                package_path=str(target),
                inductor_configs={"freezing": True},
            )
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[0][:300] if lines else type(error).__name__
        raise ConfigError(f"inductor cannot compile it: {said}", key="recipe") from None


def _is_variadic(module: nn.Module) -> bool:
    return type(module).__name__ == "Autocast"


def _module(material: Material) -> tuple[nn.Module, Mapping[str, Array]]:
    if material.module is None or material.example is None:
        raise ConfigError("no torch module was given", key="recipe")
    return material.module, material.example
