"""ONNX graphs of a few nodes, built here: what serving costs, and the models of Triton's examples.

Source: protocol section 4.2 (names, datatypes and what each computes).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config.model_card import ModelCard, Provenance, SignatureCard, TensorCard
from cluster.optimization.sources import (
    IdentityRecipe,
    SequenceArithmeticRecipe,
    SumAndDifferenceRecipe,
)
from cluster.tensors import Datatype

if TYPE_CHECKING:
    from onnx import NodeProto, ValueInfoProto

OPSET = 17
# The newest IR that onnxruntime 1.22, the oldest we allow, is sure to read.
IR_VERSION = 10

_ONNX_TYPES: dict[Datatype, str] = {
    "FP32": "FLOAT", "INT8": "INT8", "INT32": "INT32", "UINT64": "UINT64", "BYTES": "STRING",
}  # fmt: skip
Tensors = dict[str, tuple[Datatype, int]]
"""Name -> datatype and width of a tensor `[batch, width]`."""


def build_identity(name: str, version: str, recipe: IdentityRecipe, folder: Path) -> ModelCard:
    """Fill `folder` with `model.onnx`: `x` FP32 `[batch, width]` -> `y`, the same."""
    from onnx import helper

    shape: tuple[Datatype, int] = ("FP32", recipe.width)
    node = helper.make_node("Identity", ["x"], ["y"])
    return _build(name, version, [node], {"x": shape}, {"y": shape}, folder)


def build_sum_and_difference(
    name: str, version: str, recipe: SumAndDifferenceRecipe, folder: Path
) -> ModelCard:
    """INPUT0, INPUT1 `[batch, 16]` -> OUTPUT0, their sum, and OUTPUT1, their difference."""
    from onnx import TensorProto, helper

    inputs, outputs = ["INPUT0", "INPUT1"], ["OUTPUT0", "OUTPUT1"]
    nodes: list[NodeProto] = []
    if recipe.datatype == "BYTES":
        read, made = ["number0", "number1"], ["sum", "difference"]
        pairs = zip(inputs, read, strict=True)
        nodes += [helper.make_node("Cast", [a], [b], to=TensorProto.INT32) for a, b in pairs]
        pairs = zip(made, outputs, strict=True)
        texts = [helper.make_node("Cast", [a], [b], to=TensorProto.STRING) for a, b in pairs]
    else:
        read, made, texts = inputs, outputs, []
    nodes += [helper.make_node("Add", read, made[:1]), helper.make_node("Sub", read, made[1:])]
    shape: tuple[Datatype, int] = (recipe.datatype, 16)
    return _build(
        name,
        version,
        [*nodes, *texts],
        dict.fromkeys(inputs, shape),
        dict.fromkeys(outputs, shape),
        folder,
    )


def build_sequence_arithmetic(
    name: str, version: str, recipe: SequenceArithmeticRecipe, folder: Path
) -> ModelCard:
    """Of `[batch, 1]` each: INPUT, START, READY -> OUTPUT = (INPUT + START) * READY.

    `ends`: also END and CORRID, OUTPUT = (INPUT + START + END * CORRID) * READY.
    `text-ends`: INPUT, TOTAL_IN, END, CORRID -> OUTPUT, TOTAL_OUT = INPUT + TOTAL_IN + END * CORRID
    """
    from onnx import TensorProto, helper

    number: tuple[Datatype, int] = ("INT32", 1)
    if recipe.controls == "starts":
        inputs: Tensors = {"INPUT": number, "START": number, "READY": number}
    elif recipe.controls == "ends":
        inputs = {"INPUT": number, "START": number, "READY": number, "END": number}
        inputs["CORRID"] = ("UINT64", 1)
    else:
        inputs = {"INPUT": number, "TOTAL_IN": number, "END": number, "CORRID": ("BYTES", 1)}
    outputs: Tensors = {"OUTPUT": number}
    nodes = []
    last = "INPUT"
    if "CORRID" in inputs:
        nodes += [
            helper.make_node("Cast", ["CORRID"], ["id"], to=TensorProto.INT32),
            helper.make_node("Mul", ["END", "id"], ["end_id"]),
            helper.make_node("Add", ["INPUT", "end_id"], ["ended"]),
        ]
        last = "ended"
    if "READY" in inputs:
        nodes.append(helper.make_node("Add", [last, "START"], ["begun"]))
        nodes.append(helper.make_node("Mul", ["begun", "READY"], ["OUTPUT"]))
    else:
        outputs["TOTAL_OUT"] = number
        nodes.append(helper.make_node("Add", [last, "TOTAL_IN"], ["OUTPUT"]))
        nodes.append(helper.make_node("Identity", ["OUTPUT"], ["TOTAL_OUT"]))
    return _build(name, version, nodes, inputs, outputs, folder)


def _build(
    name: str,
    version: str,
    nodes: list[NodeProto],
    inputs: Tensors,
    outputs: Tensors,
    folder: Path,
) -> ModelCard:
    from onnx import TensorProto, checker, helper, save

    def infos(tensors: Tensors) -> list[ValueInfoProto]:
        return [
            helper.make_tensor_value_info(
                tensor, TensorProto.DataType.Value(_ONNX_TYPES[datatype]), ["batch", width]
            )
            for tensor, (datatype, width) in tensors.items()
        ]

    graph = helper.make_graph(nodes, name.replace("-", "_"), infos(inputs), infos(outputs))
    model = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    checker.check_model(model, full_check=True)
    save(model, str(folder / "model.onnx"))
    operators = ", ".join(dict.fromkeys(node.op_type for node in nodes))
    return ModelCard(
        name=name,
        version=version,
        format="onnx",
        artefact="model.onnx",
        signature=SignatureCard(inputs=_cards(inputs), outputs=_cards(outputs)),
        provenance=Provenance(
            file="model.onnx", recipe=f"{len(nodes)} ONNX nodes ({operators}), opset {OPSET}"
        ),
    )


def _cards(tensors: Tensors) -> list[TensorCard]:
    return [
        TensorCard(name=name, datatype=datatype, shape=[-1, width])
        for name, (datatype, width) in tensors.items()
    ]
