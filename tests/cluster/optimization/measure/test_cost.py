"""Parameters and operations, against counts made by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.export.module import export_module
from cluster.optimization.measure.cost import module_cost, onnx_cost
from cluster.optimization.measure.inspect import inspect_model
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
