from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cluster.errors import ConfigError
from cluster.optimization.facts.onnx_graph import estimate_onnx, look_at


def write(path: Path) -> Path:
    """A convolution, a residual block of one convolution, a classifier."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w2"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "w3"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [weight("w1", 4, 3, 3, 3), weight("w2", 4, 4, 3, 3), weight("w3", 10, 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def test_work_and_weights_of_every_operator_are_counted(tmp_path: Path) -> None:
    facts = look_at(write(tmp_path / "m.onnx"), tokens=1)

    pixels = 4 * 8 * 8
    exact = 2 * pixels * 27 + 2 * pixels * 36 + 2 * 10 * 4
    assert exact <= facts.flops <= 1.05 * exact
    assert facts.weight_bytes == 4 * (108 + 144 + 40)


def test_the_graph_is_cut_around_its_residual_block(tmp_path: Path) -> None:
    facts = look_at(write(tmp_path / "m.onnx"), tokens=1)

    assert [layer.weight_bytes for layer in facts.layers] == [432, 576, 0, 0, 160]
    assert facts.layers[0].activation_bytes == 4 * 4 * 8 * 8


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"no model at all")

    with pytest.raises(ConfigError, match=r"broken\.onnx: no ONNX model"):
        look_at(file, tokens=1)


def test_a_file_is_looked_at_by_another_process_once_for_each_of_its_states(
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "m.onnx")
    first = estimate_onnx("one", file, tokens=1)
    assert first == replace(look_at(file, tokens=1), kind="one/1")

    # What says that a file is another one is its size and its time.
    seen = file.stat()
    file.write_bytes(b"x" * seen.st_size)
    os.utime(file, ns=(seen.st_mtime_ns, seen.st_mtime_ns))
    assert estimate_onnx("other", file, tokens=1).layers == first.layers

    os.utime(file, ns=(1, 1))
    with pytest.raises(ConfigError, match=r"m\.onnx: no ONNX model"):
        estimate_onnx("one", file, tokens=1)


def test_weights_in_files_beside_the_graph_are_not_read(tmp_path: Path) -> None:
    model = onnx.load(str(write(tmp_path / "whole.onnx")))
    file = tmp_path / "m.onnx"
    onnx.save(model, str(file), save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").unlink()

    assert look_at(file, tokens=1) == look_at(tmp_path / "whole.onnx", tokens=1)
