"""Operators that somebody wrote. Annotations are real objects here: torch reads them."""

from pathlib import Path

import torch
from onnx import FunctionProto, TensorProto, helper, save


def plus_one(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def twice() -> FunctionProto:
    """`mine::Twice`: y = x + x, of standard operators."""
    return helper.make_function(
        "mine",
        "Twice",
        ["x"],
        ["y"],
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [helper.make_opsetid("", 17)],
    )


def doubled_graph(file: Path) -> Path:
    """A graph that calls `mine::Twice` and does not say what that is."""
    shape = ["batch", 4]
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="mine")],
        "doubled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    save(helper.make_model(graph, ir_version=10, opset_imports=opsets), str(file))
    return file


def doubled_tokens(file: Path) -> Path:
    """INT64 `tokens` [batch, 7 exactly, or it fails] -> twice as much, of a free length by name."""
    shape = ["batch", "length"]
    nodes = [
        helper.make_node("Reshape", ["tokens", "seven"], ["rows"]),
        helper.make_node("Add", ["rows", "rows"], ["y"]),
    ]
    seven = helper.make_tensor("seven", TensorProto.INT64, [2], [-1, 7])
    graph = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["batch", 7])],
        [seven],
    )
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, ir_version=10, opset_imports=opsets), str(file))
    return file
