"""An ONNX file as the planner's graph: FLOPs, weights and tensor sizes of each operator."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from cluster.errors import ConfigError
from cluster.placement.estimates.graphs import GraphNode, estimate_graph
from cluster.placement.search.facts import ModelFacts


def estimate_onnx(kind: str, file: Path, *, tokens: int) -> ModelFacts:
    """Estimated facts of one request. Sizes that the graph leaves open are 1 for the batch (the
    first one of an input) and `tokens` for the others.

    Raises: ConfigError for a file that is no ONNX model.
    """
    import onnx
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    try:
        model = onnx.load(str(file), load_external_data=False)
        for value in model.graph.input:
            _close(value, tokens)
        del model.graph.value_info[:]
        for value in model.graph.output:
            _forget(value)
        # onnx's own inference gives up at paddings that are computed.
        model = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    except Exception as error:
        # onnx raises protobuf's and its own errors of many classes for a broken file.
        raise ConfigError(f"{file}: no ONNX model: {error}", file=str(file)) from None
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            weights[node.output[0]] = node.attribute[0].t
        elif node.op_type == "DequantizeLinear" and node.input[0] in weights:
            # A quantised weight is kept small, and multiplied under its other name.
            weights[node.output[0]] = weights[node.input[0]]
    shapes = _shapes(model.graph)
    free = _made_of_shapes(model.graph, weights)
    nodes = [
        _node(node, weights, shapes, free, onnx.helper)
        for node in model.graph.node
        if not free.issuperset(node.output)
    ]
    bits = 8 if any(tensor.data_type in (2, 3) for tensor in weights.values()) else 32
    return estimate_graph(kind, nodes, [value.name for value in model.graph.output], bits=bits)


def _close(value: Any, tokens: int) -> None:
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if not dim.HasField("dim_value") or dim.dim_value < 1:
            dim.dim_value = tokens if axis else 1
        elif axis == 0:
            dim.dim_value = 1


def _forget(value: Any) -> None:
    for dim in value.type.tensor_type.shape.dim:
        dim.Clear()


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        found[value.name] = tuple(max(1, dim.dim_value) for dim in dims)
    return found


def _made_of_shapes(graph: Any, weights: Mapping[str, Any]) -> set[str]:
    """Tensors that follow from sizes and constants alone: every stage can compute them itself."""
    free = set(weights)
    for node in graph.node:
        is_size = node.op_type in ("Shape", "Constant", "ConstantOfShape")
        if is_size or (node.input and all(not name or name in free for name in node.input)):
            free.update(node.output)
    return free


def _node(
    node: Any,
    weights: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    free: set[str],
    helper: Any,
) -> GraphNode:
    mine = [weights[name] for name in node.input if name in weights]
    outputs = tuple(name for name in node.output if name)
    sizes = [prod(shapes.get(name, (1,))) for name in outputs]
    return GraphNode(
        inputs=tuple(name for name in node.input if name and name not in free),
        outputs=outputs,
        output_bytes=tuple(4 * size for size in sizes),
        flops=_flops(node, mine, sizes, shapes),
        weight_bytes=sum(_num_bytes(tensor, helper) for tensor in mine),
    )


def _flops(
    node: Any, weights: list[Any], sizes: list[int], shapes: Mapping[str, tuple[int, ...]]
) -> float:
    """Two for each weight that meets an output element; one an element for everything else."""
    out = float(sizes[0]) if sizes else 0.0
    matrix = next((tuple(tensor.dims) for tensor in weights if len(tensor.dims) > 1), None)
    kind = node.op_type.removeprefix("QLinear").removesuffix("Integer")
    if kind == "Conv" and matrix:
        return 2.0 * out * float(prod(matrix[1:]))
    if kind in ("MatMul", "Gemm", "FusedMatMul", "DynamicQuantizeMatMul"):
        if matrix:
            is_turned = any(a.name == "transB" and a.i for a in node.attribute)
            return 2.0 * out * float(matrix[1 if is_turned else 0])
        return 2.0 * out * (shapes.get(node.input[0]) or (1,))[-1]
    return out


def _num_bytes(tensor: Any, helper: Any) -> int:
    return int(prod(tensor.dims)) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
