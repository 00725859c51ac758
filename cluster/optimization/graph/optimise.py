"""The fp32 graph made smaller: constants folded, patterns fused. The numbers stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.errors import ConfigError
from cluster.optimization.intake.files import external_data
from cluster.optimization.precision.quiet import quiet
from cluster.optimization.search.recipe import Material


def copy(material: Material, folder: Path) -> None:
    """The graph as it is, with the weights beside it; the runtime optimises when it loads."""
    for file in external_data(material.onnx, "onnx"):
        shutil.copyfile(file, folder / file.name)
    shutil.copyfile(material.onnx, folder / "model.onnx")


def slim(material: Material, folder: Path) -> None:
    """Dead nodes, constant folding, shape chains and common subexpressions, by onnxslim."""
    import onnx
    import onnxslim

    with quiet():
        found = onnxslim.slim(str(material.onnx))
    if found is None:
        raise ConfigError("onnxslim gave no graph", key="recipe")
    onnx.save(found, str(folder / "model.onnx"))


def fuse(material: Material, folder: Path) -> None:
    """Attention, layer norm, GELU and skip connections as single nodes, by ONNX Runtime's
    transformers optimiser. The nodes are ONNX Runtime's own: no other runtime reads them."""
    with quiet():
        fused = fused_model(material.onnx)
        fused.save_model_to_file(str(folder / "model.onnx"))


def fused_model(path: Path):  # type: ignore[no-untyped-def]  # the optimiser has no types
    from onnxruntime.transformers.optimizer import optimize_model

    # 0 heads and 0 hidden: read from the graph. Level 0: the session does the general passes later.
    return optimize_model(str(path), model_type="bert", num_heads=0, hidden_size=0, opt_level=0)


def prepared(path: Path, folder: Path) -> Path:
    """Shapes inferred and batch norms folded into convolutions: what quantisation asks for."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    target = folder / "prepared.onnx"
    with quiet():
        try:
            quant_pre_process(str(path), str(target))
        except Exception:
            # Symbolic shapes that cannot be solved: the passes without it are what is needed most.
            quant_pre_process(str(path), str(target), skip_symbolic_shape=True)
    return target
