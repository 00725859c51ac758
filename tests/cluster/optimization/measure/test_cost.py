"""Parameters and operations, against counts made by hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from cluster.config.model_card import ModelCard, SignatureCard, TensorCard
from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.export.module import export_module
from cluster.optimization.facts.precision import written_precision
from cluster.optimization.measure.cost import module_cost, onnx_cost
from cluster.optimization.measure.inspect import inspect_model
from cluster.optimization.measure.memory import peak_bytes_of_module
from tests.cluster.optimization.tiny_nets import TinyCnn, TinyMlp, exported

CNN_FLOPS = 2 * (16 * 16 * 16 * 27 + 8 * 8 * 32 * 16 * 9 + 32 * 10)
MLP_FLOPS = 2 * (64 * 256 + 256 * 256 + 256 * 10)
MLP_PARAMETERS = 64 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10


def test_the_products_of_a_convolutional_network_are_counted(tmp_path: Path) -> None:
    module = TinyCnn()
    exported(module, tmp_path)

    by_graph = onnx_cost(tmp_path / "model.onnx", module.example_inputs())
    by_torch = module_cost(module, module.example_inputs())

    products = sum(o.flops for o in by_graph.operators if o.operator in ("Conv", "Gemm"))
    assert products == CNN_FLOPS
    assert by_torch.flops == CNN_FLOPS
    assert by_graph.not_counted == {}


def test_parameters_of_graph_and_module_agree(tmp_path: Path) -> None:
    module = TinyMlp()
    exported(module, tmp_path)

    by_graph = onnx_cost(tmp_path / "model.onnx", module.example_inputs())
    by_torch = module_cost(module, module.example_inputs())

    assert by_graph.num_parameters == by_torch.num_parameters == MLP_PARAMETERS
    assert by_graph.weight_bytes == 4 * MLP_PARAMETERS
    assert by_torch.flops == MLP_FLOPS


def test_a_file_that_is_no_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")

    with pytest.raises(ConfigError, match=r"bad\.onnx"):
        onnx_cost(tmp_path / "bad.onnx", {})


def test_free_sizes_are_filled_and_reported(tmp_path: Path) -> None:
    exported(TinyCnn(), tmp_path)

    _, cost = inspect_model(
        tmp_path / "model.onnx", store=ModelStore(tmp_path), workspace=tmp_path / "w"
    )

    assert cost.shapes == {"image": (1, 3, 16, 16)}
    assert cost.flops >= CNN_FLOPS


def test_weights_beside_the_graph_are_counted_and_not_read(tmp_path: Path) -> None:
    module = TinyMlp()
    export_module(module, module.example_inputs(), tmp_path, name="m", max_inside_bytes=0)
    whole = onnx_cost(tmp_path / "model.onnx", module.example_inputs())
    # As many bytes as there were, none of them on the disk.
    size = (tmp_path / "model.onnx.data").stat().st_size
    os.truncate(tmp_path / "model.onnx.data", 0)
    os.truncate(tmp_path / "model.onnx.data", size)

    cost = onnx_cost(tmp_path / "model.onnx", module.example_inputs())

    assert cost == whole
    assert cost.num_parameters == MLP_PARAMETERS
    assert sum(o.flops for o in cost.operators if o.operator in ("MatMul", "Gemm")) == MLP_FLOPS


def test_the_memory_of_a_module_run_eagerly_is_that_of_a_process_of_its_own(
    tmp_path: Path,
) -> None:
    class Wide(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.one = nn.Linear(64, width)

        def forward(self, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.one(rows) * mask
            return found

    peaks: list[int] = []
    for width in (8, 400_000):
        module = Wide(width).eval()
        example = {"x": np.ones((1, 64), np.float32), "y": np.ones((1, 1), np.float32)}
        specs = [TensorCard(name=name, datatype="FP32", shape=[-1, -1]) for name in "xy"]
        out = TensorCard(name="z", datatype="FP32", shape=[-1, width])
        signature = SignatureCard(inputs=specs, outputs=[out])
        card = ModelCard(name="m", format="onnx", artefact="m.onnx", signature=signature)
        peaks.append(peak_bytes_of_module(module, card, example))

    # 102 MB of weights more, in a process that holds torch and nothing of this one.
    assert 90e6 < peaks[1] - peaks[0] < 400e6


def save(file: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> Path:
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 8]) for name in "xy"
    )
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], constants)
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), str(file))
    return file


def test_products_in_a_branch_are_told_as_not_counted_and_their_weights_are(
    tmp_path: Path,
) -> None:
    eye = onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")
    other = onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), "v")
    numbers = onnx.TensorProto.FLOAT
    branches = {
        f"{which}_branch": onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["x", weights], [which])],
            which,
            [],
            [onnx.helper.make_tensor_value_info(which, numbers, None)],
            [other] if weights == "v" else [],
        )
        for which, weights in (("then", "w"), ("else", "v"))
    }
    nodes = [
        onnx.helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        onnx.helper.make_node("Cast", ["sum"], ["is"], to=onnx.TensorProto.BOOL),
        onnx.helper.make_node("If", ["is"], ["y"], **branches),
    ]
    file = save(tmp_path / "if.onnx", nodes, [eye])

    found = onnx_cost(file, {"x": np.zeros((1, 8), np.float32)})

    assert found.not_counted == {"If": 1}
    assert found.num_parameters == 128


@pytest.mark.parametrize(
    ("nodes", "precision"),
    [
        ([("Relu", ["x"], ["y"], {})], "fp32"),
        (
            [
                ("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], {}),
                ("DequantizeLinear", ["q", "scale", "zero"], ["y"], {}),
            ],
            "int8",
        ),
    ],
)
def test_the_precision_of_a_file_is_seen_from_its_operators(
    tmp_path: Path, nodes: list[tuple[str, list[str], list[str], dict[str, int]]], precision: str
) -> None:
    made = [onnx.helper.make_node(kind, *ends, **said) for kind, *ends, said in nodes]
    file = save(tmp_path / "made.onnx", made, [])

    assert written_precision(file) == precision
    given, _ = inspect_model(file, store=ModelStore(tmp_path), workspace=tmp_path)
    assert given.card.precision == precision


def test_the_precision_of_a_file_is_seen_from_its_weights(tmp_path: Path) -> None:
    half = onnx.numpy_helper.from_array(np.ones((8, 8), np.float16), "w")
    one = onnx.numpy_helper.from_array(np.ones(1, np.float32), "b")
    nodes = [
        onnx.helper.make_node("Cast", ["w"], ["wide"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]

    assert written_precision(save(tmp_path / "half.onnx", nodes, [half, one])) == "fp16"


def test_a_graph_that_does_not_say_how_many_dimensions_it_takes_is_told_how(
    tmp_path: Path,
) -> None:
    file = save(tmp_path / "open.onnx", [onnx.helper.make_node("Relu", ["x"], ["y"])], [])
    model = onnx.load(str(file))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    onnx.save(model, str(file))
    asked = {"store": ModelStore(tmp_path), "workspace": tmp_path}

    with pytest.raises(ConfigError, match=r"how many dimensions 'x' has; .*--input x:"):
        inspect_model(file, **asked)  # type: ignore[arg-type]
    given, found = inspect_model(
        file, inputs=("x:FP32:-1,8",), outputs=("y:FP32:-1,8",),
        **asked,  # type: ignore[arg-type]
    )  # fmt: skip

    assert given.card.batched
    assert found.shapes == {"x": (1, 8)}


def test_a_graph_without_inputs_is_one_message(tmp_path: Path) -> None:
    eye = onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")
    file = save(tmp_path / "none.onnx", [onnx.helper.make_node("Identity", ["w"], ["y"])], [eye])
    model = onnx.load(str(file))
    del model.graph.input[:]
    onnx.save(model, str(file))

    with pytest.raises(ConfigError, match="the graph has no input"):
        inspect_model(file, store=ModelStore(tmp_path), workspace=tmp_path)
