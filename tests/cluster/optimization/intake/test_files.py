"""What belongs to a model: its graph, the weights beside it, and nothing else in the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from cluster.errors import ConfigError
from cluster.optimization.intake.files import (
    external_data,
    files_of,
    graph_sha256,
    weights_sha256,
)
from tests.cluster.optimization.tiny_nets import TinyMlp, exported


def with_weights_beside(folder: Path) -> Path:
    exported(TinyMlp(), folder)
    file = folder / "model.onnx"
    onnx.save(
        onnx.load(str(file)), file, save_as_external_data=True, location="w.data", size_threshold=0
    )
    return file


def test_other_weights_beside_the_same_graph_are_another_model(tmp_path: Path) -> None:
    file = with_weights_beside(tmp_path)
    before, graph = weights_sha256(file, "onnx"), file.read_bytes()
    weights = bytearray((tmp_path / "w.data").read_bytes())
    weights[3] ^= 1
    (tmp_path / "w.data").write_bytes(weights)

    assert file.read_bytes() == graph
    assert weights_sha256(file, "onnx") != before


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    file = with_weights_beside(tmp_path)
    (tmp_path / "w.data").unlink()

    with pytest.raises(ConfigError, match=r"its weights are in w\.data, which is not beside it"):
        weights_sha256(file, "onnx")


def test_a_model_is_its_artefact_and_its_weights_not_its_neighbours(tmp_path: Path) -> None:
    with_weights_beside(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "again").mkdir()
    card = exported(TinyMlp(), tmp_path / "again")

    found = files_of(card, tmp_path)

    assert [file.name for file in found] == ["model.onnx", "w.data"]


def test_an_export_has_one_hash_wherever_in_the_code_it_came_from(tmp_path: Path) -> None:
    exported(TinyMlp(), tmp_path)
    file = tmp_path / "model.onnx"
    before = graph_sha256(file)
    model = onnx.load(str(file))
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="line 7")
    model.graph.node[0].doc_string = "elsewhere"
    onnx.save(model, str(file))

    assert graph_sha256(file) == before
    model.graph.output[0].name = "other"
    onnx.save(model, str(file))
    assert graph_sha256(file) != before


def test_an_export_has_another_hash_when_the_weights_beside_it_change(tmp_path: Path) -> None:
    file = with_weights_beside(tmp_path)
    before = graph_sha256(file)
    weights = bytearray((tmp_path / "w.data").read_bytes())
    weights[3] ^= 1
    (tmp_path / "w.data").write_bytes(weights)

    assert graph_sha256(file) != before


def test_weights_of_constants_and_of_branches_belong_to_the_model(tmp_path: Path) -> None:
    def beside(name: str) -> onnx.TensorProto:
        tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), name)
        onnx.external_data_helper.set_external_data(tensor, f"{name}.bin")
        return tensor

    value = onnx.helper.make_tensor_value_info
    branches = {
        f"{side}_branch": onnx.helper.make_graph(
            [onnx.helper.make_node("Constant", [], [side], value=beside(side))],
            side, [], [value(side, 1, [4])],
        )
        for side in ("then", "else")
    }  # fmt: skip
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["which"], ["y"], **branches)],
        "g", [value("which", onnx.TensorProto.BOOL, [])], [value("y", 1, [4])],
    )  # fmt: skip
    (tmp_path / "m.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())

    names = [file.name for file in external_data(tmp_path / "m.onnx", "onnx")]

    assert names == ["else.bin", "then.bin"]
