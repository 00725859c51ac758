"""Parameters and floating-point operations of a model, counted without running it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ConfigError
from cluster.optimization.intake.files import external_tensors
from cluster.tensors import Array

if TYPE_CHECKING:
    import onnx
    from torch import nn

ONE_A_NUMBER = (
    "Add", "Sub", "Mul", "Div", "Relu", "Clip", "Sigmoid", "Tanh", "Erf", "Gelu", "Sqrt", "Exp",
    "Pow", "LeakyRelu", "HardSwish", "HardSigmoid", "QuickGelu", "FastGelu", "BiasGelu",
)  # fmt: skip
"""Counted as one operation a number of their output; all else but products counts as none."""
NOT_KNOWN = (
    "Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention", "QGemm", "NhwcConv",
    "LSTM", "GRU", "RNN", "Einsum", "MoE", "QMoE",
)  # fmt: skip
"""Compute products, how many is not worked out here."""
PRODUCTS = (
    "Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "MatMul", "MatMulInteger",
    "QLinearMatMul", "Gemm", "MatMulNBits", *NOT_KNOWN,
)  # fmt: skip
MAX_READ = 4096
"""Tensors in files of their own with more numbers than this are not read: no shape is so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    operator: str
    count: int
    flops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """`flops`: a multiplication and an addition are two. For the inputs whose shapes are `shapes`.

    `not_counted`: operators that may compute and whose cost is not known here, with their number.
    """

    num_parameters: int
    weight_bytes: int
    flops: int
    operators: tuple[OperatorCost, ...]
    shapes: Mapping[str, tuple[int, ...]]
    not_counted: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        return {
            "num_parameters": self.num_parameters,
            "params": self.num_parameters,
            "weight_bytes": self.weight_bytes,
            "flops": self.flops,
            "operators": [
                {"operator": each.operator, "count": each.count, "flops": each.flops}
                for each in self.operators
            ],
            "input_shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "not_counted": dict(self.not_counted),
        }


def onnx_cost(path: Path, inputs: Mapping[str, Array]) -> ModelCost:
    """Of an ONNX graph for inputs of these shapes.

    Raises: ConfigError when the file is no ONNX graph or the shapes do not go through it.
    """
    import onnx

    shapes = {name: array.shape for name, array in inputs.items()}
    try:
        model = onnx.load(str(path), load_external_data=False)
        weights = [each for each in _tensors(model.graph) if math.prod(each.dims) > 1]
        constants = tuple(model.graph.initializer)
        _leave_weights_outside(model, path.parent)
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims, shapes.get(value.name, ()), strict=False):
                dim.dim_value = size
        del model.graph.value_info[:]
        inferred = onnx.shape_inference.infer_shapes(_folded(model), data_prop=True)
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        tried = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ConfigError(
            f"{path}: cannot be counted for {tried} (--shape says others): {said}", file=str(path)
        ) from None
    graph = inferred.graph
    known: dict[str, tuple[int, ...]] = {each.name: tuple(each.dims) for each in constants}
    known.update({each.name: tuple(each.dims) for each in graph.initializer})
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        # No shape at all is not that of a single number.
        has_shape = value.type.tensor_type.HasField("shape")
        if has_shape and all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = tuple(dim.dim_value for dim in dims)
    counts: dict[str, list[int]] = {}
    unknown: dict[str, int] = {}
    for node in graph.node:
        flops = _flops(node, known)
        if flops is None:
            unknown[node.op_type] = unknown.get(node.op_type, 0) + 1
            flops = 0
        counts.setdefault(node.op_type, []).append(flops)
    operators = [
        OperatorCost(operator=name, count=len(each), flops=sum(each))
        for name, each in counts.items()
    ]
    return ModelCost(
        num_parameters=sum(math.prod(each.dims) for each in weights),
        weight_bytes=sum(_num_bytes(each) for each in weights),
        flops=sum(each.flops for each in operators),
        operators=tuple(sorted(operators, key=lambda each: -each.flops)),
        shapes=shapes,
        not_counted=unknown,
    )


def _tensors(graph: Any) -> Iterator[Any]:
    """The constants of a graph and of those inside its loops and branches."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield attribute.t
            for inner in _inside(attribute):
                yield from _tensors(inner)


def _inside(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _multiplies(graph: Any) -> bool:
    """Whether there are products in it, however deep."""
    return any(
        node.op_type in PRODUCTS
        or any(_multiplies(inner) for each in node.attribute for inner in _inside(each))
        for node in graph.node
    )


def _leave_weights_outside(model: onnx.ModelProto, folder: Path) -> None:
    """Large tensors of other files become inputs of their shape: no cost depends on their numbers,
    and with them the graph may be larger than a message can be. Small ones (shapes) are read."""
    import onnx

    graph = model.graph
    for tensor in external_tensors(model):
        if math.prod(tensor.dims) <= MAX_READ:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    kept = [each for each in graph.initializer if not each.external_data]
    taken = {each.name for each in graph.input}
    for each in graph.initializer:
        if each.external_data and each.name not in taken:
            kind = onnx.helper.make_tensor_value_info(each.name, each.data_type, list(each.dims))
            graph.input.append(kind)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """With what depends on shapes alone folded by ONNX Runtime: exporters compute paddings and
    reshapes in the graph, and shape inference does not run it."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        fixed, folded = str(Path(folder) / "fixed.onnx"), str(Path(folder) / "folded.onnx")
        onnx.save(model, fixed)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = folded
        options.log_severity_level = 4
        onnxruntime.InferenceSession(fixed, options, providers=["CPUExecutionProvider"])
        return onnx.load(folded)


def module_cost(module: nn.Module, inputs: Mapping[str, Array]) -> ModelCost:
    """By torch's own counter. Raises: ConfigError when the module fails on the inputs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    tensors = [torch.from_numpy(array) for array in inputs.values()]
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            module(*tensors)
    except Exception as error:
        raise ConfigError(f"{type(module).__name__}: {error}", key="input") from None
    found: dict[Any, int] = counter.get_flop_counts().get("Global", {})
    parameters = list(module.parameters())
    operators = [
        OperatorCost(operator=str(name), count=1, flops=int(flops)) for name, flops in found.items()
    ]
    return ModelCost(
        num_parameters=sum(each.numel() for each in parameters),
        weight_bytes=sum(each.numel() * each.element_size() for each in parameters),
        flops=counter.get_total_flops(),
        operators=tuple(sorted(operators, key=lambda each: -each.flops)),
        shapes={name: array.shape for name, array in inputs.items()},
        not_counted={},
    )


def _flops(node: Any, known: Mapping[str, tuple[int, ...]]) -> int | None:
    """None when the operator computes products and a shape that it needs is not known."""
    out = known.get(node.output[0])
    shapes = [known.get(name) for name in node.input]
    match node.op_type:
        case "Conv" | "ConvInteger" | "QLinearConv" | "FusedConv":
            weight = shapes[3] if node.op_type == "QLinearConv" else shapes[1]
            if out is None or weight is None:
                return None
            return 2 * math.prod(out) * math.prod(weight[1:])
        case "If" | "Loop" | "Scan" | "SequenceMap":
            # How often a loop runs and which branch is taken, only the numbers tell.
            inner = (graph for each in node.attribute for graph in _inside(each))
            return None if any(map(_multiplies, inner)) else 0
        case "ConvTranspose":
            source, weight = shapes[0], shapes[1]
            if source is None or weight is None:
                return None
            return 2 * math.prod(source) * math.prod(weight[1:])
        case (
            "MatMul" | "MatMulInteger" | "FusedMatMul" | "QLinearMatMul" | "MatMulIntegerToFloat"
            | "DynamicQuantizeMatMul"
        ):  # fmt: skip
            if out is None or not shapes[0]:
                return None
            return 2 * math.prod(out) * shapes[0][-1]
        case "Gemm" | "FusedGemm":
            if out is None or not shapes[0]:
                return None
            flipped = any(each.name == "transA" and each.i for each in node.attribute)
            return 2 * math.prod(out) * shapes[0][0 if flipped else -1]
        case "MatMulNBits":
            size = {str(each.name): int(each.i) for each in node.attribute}
            if shapes[0] is None:
                return None
            return 2 * math.prod(shapes[0][:-1]) * size["K"] * size["N"]
        case other if other in NOT_KNOWN:
            return None
        case other:
            return math.prod(out) if out is not None and other in ONE_A_NUMBER else 0


def _num_bytes(tensor: Any) -> int:
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    # Four-bit types are stored two a byte.
    bits = 4 if "4" in onnx.TensorProto.DataType.Name(tensor.data_type) else 8 * dtype.itemsize
    if onnx.TensorProto.DataType.Name(tensor.data_type) == "FLOAT8E4M3FN":
        bits = 8
    return int(math.prod(tensor.dims)) * bits // 8
