"""EfficientNet-Lite: the published state dict and architecture code as fp32 ONNX.

Source: Tan and Le 2019; the Lite variants of the TensorFlow TPU repository (ReLU6, no
squeeze-excite), ported to PyTorch in `efficientnet-lite-pytorch`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config.model_card import (
    ClassifyPostprocess,
    ImagePreprocess,
    ModelCard,
    SignatureCard,
    TensorCard,
)
from cluster.optimization.export_onnx import export_onnx
from cluster.optimization.sources import EfficientNetRecipe
from cluster.optimization.workshop import Workshop

if TYPE_CHECKING:
    import torch

NUM_CLASSES = 1000
_CODE = "efficientnet_lite_pytorch"


def build(
    name: str, version: str, recipe: EfficientNetRecipe, workshop: Workshop, folder: Path
) -> ModelCard:
    """Fill `folder` with `model.onnx` and `labels.txt`."""
    import torch

    with workshop.progress.step(f"{name}: export to ONNX"):
        random = torch.Generator().manual_seed(0)
        images = torch.empty(3, 3, recipe.size, recipe.size).uniform_(-1, 1, generator=random)
        difference = export_onnx(
            load_network(recipe, workshop),
            {"image": images[:2]},
            folder / "model.onnx",
            check={"image": images},
            output="logits",
            dynamic_dims={"image": {0: "batch"}, "logits": {0: "batch"}},
            opset=recipe.opset,
        )
    labels = json.loads(workshop.read(recipe.labels))
    lines = [labels[str(index)] for index in range(NUM_CLASSES)]
    (folder / "labels.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ModelCard(
        name=name,
        version=version,
        format="onnx",
        artefact="model.onnx",
        signature=SignatureCard(
            inputs=[TensorCard(name="image", datatype="FP32", shape=_shape(recipe))],
            outputs=[TensorCard(name="logits", datatype="FP32", shape=[-1, NUM_CLASSES])],
        ),
        preprocess=ImagePreprocess(input="image", size=recipe.size),
        postprocess=ClassifyPostprocess(input="logits"),
        provenance=workshop.provenance(
            recipe.weights.archive,
            file=recipe.weights.path,
            recipe=f"torch.onnx.export, opset {recipe.opset}, dynamic batch",
            notes=f"differs from torch by at most {difference:.1e} on a random batch of 3",
        ),
    )


def _shape(recipe: EfficientNetRecipe) -> list[int]:
    return [-1, 3, recipe.size, recipe.size]


def load_network(recipe: EfficientNetRecipe, workshop: Workshop) -> torch.nn.Module:
    weights = workshop.read(recipe.weights)
    with tempfile.TemporaryDirectory() as temporary, _importable(workshop.archive(recipe.code)):
        path = Path(temporary) / "weights.pth"
        path.write_bytes(weights)
        code = importlib.import_module(_CODE)
        import torch

        module: torch.nn.Module = code.EfficientNet.from_name(recipe.architecture)
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        # The package's own traced form of swish and dropout is not used: Lite has ReLU6 only.
        return module.eval()


@contextmanager
def _importable(wheel: Path) -> Iterator[None]:
    """The verified wheel on `sys.path` (Python imports from a zip), for this block only."""
    sys.path.insert(0, str(wheel))
    try:
        # The package prints while it builds a network; stdout belongs to `--json`.
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.path.remove(str(wheel))
        for module in [name for name in sys.modules if name.split(".")[0] == _CODE]:
            del sys.modules[module]
