"""What is built for GPUs, as far as it can be built without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest

from cluster.optimization.precision import half, int8
from cluster.optimization.search.gpu_recipes import GPU_RECIPES, gpu_recipes_of
from cluster.optimization.search.recipe import Material, operators_of
from cluster.optimization.search.recipes import EVERY_RECIPE, missing
from tests.cluster.optimization.tiny_nets import TinyCnn, exported, rows


@pytest.fixture
def material(tmp_path: Path) -> Material:
    net = TinyCnn()
    card = exported(net, tmp_path)
    items = tuple({"image": each[None]} for each in rows(net, 8)["image"])
    graph = tmp_path / "model.onnx"
    return Material(card=card, onnx=graph, calibration=items, operators=operators_of(graph))


def built(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_int8_for_tensorrt_is_signed_and_without_zero_points(
    material: Material, tmp_path: Path
) -> None:
    folder = built(tmp_path)
    int8.symmetric(material, folder)

    graph = onnx.load(folder / "model.onnx").graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    points = [
        constants[node.input[2]]
        for node in graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2
    ]
    assert points
    assert all(each.dtype == np.int8 and not each.any() for each in points)


def test_fp16_keeps_the_types_of_inputs_and_outputs(material: Material, tmp_path: Path) -> None:
    folder = built(tmp_path)
    half.fp16(material, folder)

    graph = onnx.load(folder / "model.onnx").graph
    weights = [each for each in graph.initializer if len(each.dims) > 1]
    assert {each.data_type for each in weights} == {onnx.TensorProto.FLOAT16}
    item = material.calibration[0]
    before, after = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, item)[0]
        for file in (material.onnx, folder / "model.onnx")
    )
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, before, atol=0.02)


def test_every_recipe_has_a_name_of_its_own_and_those_for_gpus_say_so() -> None:
    names = [each.name for each in EVERY_RECIPE]

    assert len(set(names)) == len(names)
    assert {each.device for each in GPU_RECIPES} == {"cuda"}
    assert {each.name for each in gpu_recipes_of("basic")} < {each.name for each in GPU_RECIPES}


def test_what_cannot_be_built_here_says_why(material: Material) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    reasons = {each.name: missing(each) or each.why_not(material) for each in GPU_RECIPES}

    assert all(reasons.values())
    assert "no CUDAExecutionProvider" in reasons["onnxruntime-cuda-fp16"]
    assert "needs a torch module" in reasons["inductor-cuda-fp32"]
