"""An ONNX graph cut where one tensor is all that goes on: each stage a model of its own.

Run as a program it tells the layers, or writes the stages' files.
"""

from __future__ import annotations

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

from cluster.engines.sharded.stages import answer_program, cut_into_files
from cluster.placement.partition import LayeredModel

SMALL_BYTES = 4096
"""What is larger is a weight, and no shape depends on its values."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bare:
    """A graph without its weights, which are inputs now: shapes, cuts and costs need none of their
    values. `weights`: the shape and the bytes of every one."""

    model: onnx.ModelProto
    points: tuple[Cut, ...]
    weights: dict[str, tuple[list[int], int]]


def segments(file: Path) -> tuple[LayeredModel, tuple[Cut, ...]]:
    """The runs of nodes between cuts as layers, with the bytes of their weights and their
    multiplications."""
    bare = _bare(file)
    graph = bare.model.graph
    bounds = [0, *(cut.node + 1 for cut in bare.points), len(graph.node)]
    shapes = {name: dims for name, (dims, _) in bare.weights.items()} | _shapes(bare.model)
    layer_bytes, layer_cost = [], []
    for start, stop in pairwise(bounds):
        nodes = graph.node[start:stop]
        names = {name for node in nodes for name in _reads(node)} & bare.weights.keys()
        layer_bytes.append(sum(bare.weights[name][1] for name in names))
        layer_cost.append(sum(_multiplications(node, shapes) for node in nodes) or 1.0)
    layered = LayeredModel(
        num_layers=len(layer_bytes),
        layer_bytes=tuple(layer_bytes),
        layer_cost=tuple(layer_cost),
        can_be_split=False,
        can_be_streamed=False,
    )
    return layered, bare.points


def _bare(file: Path) -> _Bare:
    """The file is read once; weights that lie in files beside the graph are not read at all."""
    model = onnx.load(str(file), load_external_data=False)
    graph = model.graph
    points = cuts(graph)
    weights = {t.name: (list(t.dims), _weight_bytes(t)) for t in graph.initializer}
    # Sizes, axes and the like stay: shapes follow from their values.
    kept = [tensor for tensor in graph.initializer if _weight_bytes(tensor) <= SMALL_BYTES]
    for tensor in kept:
        if onnx.external_data_helper.uses_external_data(tensor):
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(file.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    known = {tensor.name for tensor in graph.input}
    taken = [
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in graph.initializer
        if _weight_bytes(tensor) > SMALL_BYTES and tensor.name not in known
    ]
    # Copies: what a message loses keeps its memory until the message goes.
    light = [tensor.SerializeToString() for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(map(onnx.TensorProto.FromString, light))
    graph.input.extend(taken)
    told = model.SerializeToString()
    return _Bare(model=onnx.ModelProto.FromString(told), points=points, weights=weights)


def stage_files(file: Path, runs: Sequence[range]) -> tuple[str, ...]:
    return cut_into_files(file, runs, program=__spec__.name, suffix=".onnx")


def write_stages(file: Path, folder: Path, runs: Sequence[range]) -> None:
    """Each file appears whole or not at all; two that cut at the same time write the same."""
    bare = _bare(file)
    extractor = Extractor(onnx.shape_inference.infer_shapes(bare.model))
    small = {tensor.name for tensor in bare.model.graph.initializer}
    inputs = [t.name for t in bare.model.graph.input if t.name not in bare.weights]
    outputs = [t.name for t in bare.model.graph.output]
    weights = onnx.load(str(file)).graph.initializer
    for index, run in enumerate(runs):
        takes = inputs if run.start == 0 else bare.points[run.start - 1].tensors
        gives = outputs if index == len(runs) - 1 else bare.points[run.stop - 1].tensors
        stage = extractor.extract_model(takes, gives)
        read = {name for node in stage.graph.node for name in _reads(node)} - small
        stage.graph.initializer.extend(tensor for tensor in weights if tensor.name in read)
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


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Of every computed tensor that can be told, with one row. ONNX Runtime folds constants first:
    exporters compute paddings in the graph, at which ONNX's own inference stops."""
    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        options.log_severity_level = 4
        try:
            graph = model.SerializeToString()
            ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
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
    found: dict[str, list[int]] = {}
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
    answer_program(sys.argv[1:], lambda file: segments(file)[0], write_stages)
