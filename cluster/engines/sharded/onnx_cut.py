"""An ONNX graph cut where one tensor is all that goes on: each stage a model of its own.

Run as a program it writes the stages' files.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx.utils import Extractor

from cluster.engines.sharded.stages import cut_into_files
from cluster.placement.partition import LayeredModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """After node `node` (in the graph's order) only `tensor` is needed of what came before, and
    sizes that were read off a tensor's shape (`sizes`: a few integers)."""

    node: int
    tensor: str
    sizes: tuple[str, ...] = ()

    @property
    def tensors(self) -> list[str]:
        return [self.tensor, *self.sizes]


def cuts(graph: onnx.GraphProto) -> tuple[Cut, ...]:
    """The articulation points of the graph's data flow, in order.

    Weights and constants are no data flow: each stage takes its own.
    """
    weights = {tensor.name for tensor in graph.initializer}
    computed = _computed(graph, weights)
    sizes = _sizes(graph, computed)
    last_use: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in _reads(node):
            last_use[name] = index
    for output in graph.output:
        last_use[output.name] = len(graph.node)
    alive = {tensor.name for tensor in graph.input if tensor.name not in weights}
    found: list[Cut] = []
    for index, node in enumerate(graph.node[:-1]):
        alive |= {name for name in node.output if name in computed and name in last_use}
        alive = {name for name in alive if last_use.get(name, -1) > index}
        data = alive - sizes
        if len(data) == 1 and data <= set(node.output):
            (tensor,) = data
            found.append(Cut(node=index, tensor=tensor, sizes=tuple(sorted(alive & sizes))))
    return tuple(found)


def segments(file: Path) -> tuple[LayeredModel, tuple[Cut, ...]]:
    """The runs of nodes between cuts as layers, with the bytes of their weights and their
    multiplications. The weights stay in their file where they lie beside the graph."""
    model = onnx.load(str(file), load_external_data=False)
    graph = model.graph
    points = cuts(graph)
    bounds = [0, *(cut.node + 1 for cut in points), len(graph.node)]
    sizes = {tensor.name: _weight_bytes(tensor) for tensor in graph.initializer}
    shapes = _shapes(model, file)
    layer_bytes, layer_cost = [], []
    for start, stop in pairwise(bounds):
        nodes = graph.node[start:stop]
        names = {name for node in nodes for name in _reads(node)}
        layer_bytes.append(sum(sizes.get(name, 0) for name in names))
        layer_cost.append(sum(_multiplications(node, shapes) for node in nodes) or 1.0)
    layered = LayeredModel(
        num_layers=len(layer_bytes),
        layer_bytes=tuple(layer_bytes),
        layer_cost=tuple(layer_cost),
        can_be_split=False,
    )
    return layered, points


def stage_files(file: Path, runs: Sequence[range]) -> tuple[str, ...]:
    return cut_into_files(file, runs, program=__spec__.name, suffix=".onnx")


def write_stages(file: Path, folder: Path, runs: Sequence[range]) -> None:
    """Each file appears whole or not at all; two that cut at the same time write the same."""
    model = onnx.load(str(file))
    points = cuts(model.graph)
    model = onnx.shape_inference.infer_shapes(model)
    extractor = Extractor(model)
    inputs = [t.name for t in model.graph.input]
    outputs = [t.name for t in model.graph.output]
    for index, run in enumerate(runs):
        takes = inputs if run.start == 0 else points[run.start - 1].tensors
        gives = outputs if index == len(runs) - 1 else points[run.stop - 1].tensors
        stage = extractor.extract_model(takes, gives)
        temporary = folder / f".stage-{index}-{os.getpid()}"
        onnx.save(stage, str(temporary))
        temporary.rename(folder / f"stage-{index}.onnx")


def _reads(node: onnx.NodeProto) -> set[str]:
    """What a node reads, also inside the branches and bodies that it has."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for graph in graphs:
            inner = {name for child in graph.node for name in _reads(child)}
            names |= inner | {output.name for output in graph.output}
    return names


def _computed(graph: onnx.GraphProto, weights: set[str]) -> set[str]:
    """The tensors that depend on an input; the others are constants wherever they are."""
    known = {tensor.name for tensor in graph.input if tensor.name not in weights}
    for node in graph.node:
        if _reads(node) & known:
            known |= set(node.output)
    return known


def _sizes(graph: onnx.GraphProto, computed: set[str]) -> set[str]:
    """What is computed from shapes only."""
    found: set[str] = set()
    for node in graph.node:
        depends = _reads(node) & computed
        if node.op_type in ("Shape", "Size") or (depends and depends <= found):
            found |= set(node.output)
    return found


def _weight_bytes(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return int(count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _shapes(model: onnx.ModelProto, file: Path) -> dict[str, list[int]]:
    """Of every tensor that can be told, with one row. ONNX Runtime folds constants first: exporters
    compute paddings in the graph, at which ONNX's own inference stops."""
    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        options.log_severity_level = 4
        try:
            ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            told = onnx.load(str(folded), load_external_data=False)
        except Exception:
            # Whatever the runtime finds wrong it says when the model is loaded to be served.
            told = model
    for tensor in told.graph.input:
        for dim in tensor.type.tensor_type.shape.dim:
            if not dim.dim_value:
                dim.dim_value = 1
    del told.graph.value_info[:]
    for tensor in told.graph.output:
        tensor.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(told).graph
    found = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        # A size that is not known counts as one.
        found[value.name] = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    return found


def _multiplications(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> float:
    if node.op_type not in ("Conv", "QLinearConv", "MatMul", "Gemm", "QLinearMatMul"):
        return 0.0
    weight = shapes.get(node.input[3 if node.op_type.startswith("Q") else 1], [])
    output = shapes.get(node.output[0], [])
    total = 1.0
    for size in output:
        total *= size
    if node.op_type.endswith("Conv"):
        for size in weight[1:]:
            total *= size
        return total
    return total * (weight[0] if len(weight) > 1 else 1)


if __name__ == "__main__":
    source, target, told = sys.argv[1:]
    write_stages(Path(source), Path(target), [range(*bounds) for bounds in json.loads(told)])
