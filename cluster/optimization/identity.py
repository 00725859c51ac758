"""An ONNX graph that gives back what it gets: it shows what serving costs, not computing."""

from __future__ import annotations

from pathlib import Path

from cluster.config.model_card import ModelCard, Provenance, SignatureCard, TensorCard
from cluster.optimization.sources import IdentityRecipe

OPSET = 17
# The newest IR that onnxruntime 1.22, the oldest we allow, is sure to read.
IR_VERSION = 10


def build(name: str, version: str, recipe: IdentityRecipe, folder: Path) -> ModelCard:
    """Fill `folder` with `model.onnx`: `x` FP32 `[batch, width]` -> `y`, the same."""
    write_onnx(recipe.width, folder / "model.onnx")
    return ModelCard(
        name=name,
        version=version,
        format="onnx",
        artefact="model.onnx",
        signature=SignatureCard(
            inputs=[TensorCard(name="x", datatype="FP32", shape=[-1, recipe.width])],
            outputs=[TensorCard(name="y", datatype="FP32", shape=[-1, recipe.width])],
        ),
        provenance=Provenance(file="model.onnx", recipe=f"one Identity node, opset {OPSET}"),
    )


def write_onnx(width: int, path: Path) -> None:
    from onnx import TensorProto, checker, helper, save

    shape: list[str | int | None] = ["batch", width]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    checker.check_model(model, full_check=True)
    save(model, str(path))
