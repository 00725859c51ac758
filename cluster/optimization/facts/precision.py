"""The precision that an ONNX file was made in, seen from its operators and weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

QUANTISED = (
    "QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger", "DynamicQuantizeMatMul", "QAttention", "QGemm",
)  # fmt: skip

Written = Literal["fp32", "fp16", "bf16", "int8", "int8-weights", "int4-weights"]


def written_precision(path: Path) -> Written:
    """Of activations where they are quantised, else of the weights: most of their numbers."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    nodes = list(graph.node)
    if any(node.op_type in QUANTISED for node in nodes):
        return "int8"
    bits = {
        attribute.i
        for node in nodes
        if node.op_type == "MatMulNBits"
        for attribute in node.attribute
        if attribute.name == "bits"
    }
    if bits:
        return "int4-weights" if min(bits) <= 4 else "int8-weights"
    if any(node.op_type == "DequantizeLinear" for node in nodes):
        return "int8-weights"
    numbers: Counter[int] = Counter()
    for tensor in _constants(graph):
        numbers[tensor.data_type] += math.prod(tensor.dims)
    halves: dict[int, Written] = {
        onnx.TensorProto.FLOAT16: "fp16",
        onnx.TensorProto.BFLOAT16: "bf16",
    }
    floats = {kind: numbers[kind] for kind in (onnx.TensorProto.FLOAT, *halves) if numbers[kind]}
    most = max(floats, key=lambda kind: floats[kind], default=onnx.TensorProto.FLOAT)
    return halves.get(most, "fp32")


def _constants(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (each.t for each in node.attribute if each.name == "value")
