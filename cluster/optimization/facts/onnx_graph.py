"""An ONNX file as the planner's graph: FLOPs, weights and tensor sizes of each operator.

A graph is opened by a process of its own that ends, as it is for cutting: the one that deploys
never holds the weights that lie in the file. Weights in files beside it are not read at all.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from cluster.errors import ConfigError
from cluster.placement.estimates.graphs import GraphNode, estimate_graph
from cluster.placement.search.facts import ModelFacts

TIMEOUT_S = 240.0


def estimate_onnx(kind: str, file: Path, *, tokens: int) -> ModelFacts:
    """Estimated facts of one request, looked up once for each state of the file. Sizes that the
    graph leaves open are 1 for the batch (the first one of an input) and `tokens` for the others.

    Raises: ConfigError for a file that is no ONNX model.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", file=str(file), key="artefact") from None
    found = _told(file.resolve(), status.st_size, status.st_mtime_ns, tokens)
    return replace(found, kind=f"{kind}/{tokens}")


@lru_cache(maxsize=256)
def _told(file: Path, size: int, mtime_ns: int, tokens: int) -> ModelFacts:
    done = subprocess.run(
        [sys.executable, "-m", "cluster.optimization.facts.onnx_graph", str(file), str(tokens)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(said, file=str(file), key="artefact")
    # The last line: libraries may print before it.
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=ModelFacts)


def look_at(file: Path, *, tokens: int) -> ModelFacts:
    """The same in this process. Raises: ConfigError for a file that is no ONNX model."""
    import onnx
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    try:
        model = onnx.load(str(file), load_external_data=False)
        if not model.graph.node:
            raise ValueError("it has no operators")  # Some other bytes are a message, too.
        for value in model.graph.input:
            _close(value, tokens)
        del model.graph.value_info[:]
        for value in model.graph.output:
            _forget(value)
        # onnx's own inference gives up at paddings that are computed.
        model = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    except Exception as error:
        # onnx raises protobuf's and its own errors of many classes for a broken file.
        told = " ".join(str(error).split())
        raise ConfigError(f"{file}: no ONNX model: {told}", file=str(file)) from None
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
    return estimate_graph("onnx", nodes, [value.name for value in model.graph.output], bits=bits)


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


if __name__ == "__main__":
    try:
        print(msgspec.json.encode(look_at(Path(sys.argv[1]), tokens=int(sys.argv[2]))).decode())
    except ConfigError as error:
        sys.exit(error.message)
