from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from cluster.config.device import Device
from cluster.engines.engine import EngineSetup
from cluster.engines.onnxruntime import OnnxRuntimeEngine, choose_providers
from cluster.errors import ConfigError, InvalidRequest
from cluster.tensors import NUMPY_DTYPES, Datatype, bytes_array
from tests.contracts.tiny_models import card, save_graph, save_onnx

EVERYTHING = (
    "CPUExecutionProvider",
    "OpenVINOExecutionProvider",
    "AzureExecutionProvider",
    "DmlExecutionProvider",
    "CoreMLExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)


def loaded(folder: Path, **changes: object) -> OnnxRuntimeEngine:
    made = card(format="onnx", artefact="model.onnx", **changes)
    engine = OnnxRuntimeEngine(EngineSetup(card=made, folder=folder))
    engine.load()
    return engine


def signature(datatype: str, takes: object = (-1, 4), gives: object = (-1, 4)) -> object:
    return {
        "inputs": [{"name": "x", "datatype": datatype, "shape": takes}],
        "outputs": [{"name": "y", "datatype": datatype, "shape": gives}],
    }


def test_auto_takes_the_fastest_that_is_there() -> None:
    assert [name for name, _ in choose_providers(Device(kind="auto"), EVERYTHING)] == [
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CoreMLExecutionProvider",
        "DmlExecutionProvider",
        "OpenVINOExecutionProvider",
        "CPUExecutionProvider",
    ]
    assert choose_providers(Device(kind="auto"), ["AzureExecutionProvider", EVERYTHING[0]]) == (
        ("CPUExecutionProvider", {}),
    )


def test_a_gpu_of_a_number_is_asked_for_by_it() -> None:
    assert choose_providers(Device(kind="cuda", index=1), EVERYTHING) == (
        ("CUDAExecutionProvider", {"device_id": "1"}),
        ("CPUExecutionProvider", {}),
    )


def test_an_apple_gpu_is_reached_through_core_ml() -> None:
    assert choose_providers(Device(kind="mps"), EVERYTHING)[0][0] == "CoreMLExecutionProvider"


def test_cpu_is_cpu_alone_whatever_else_is_there() -> None:
    assert choose_providers(Device(kind="cpu"), EVERYTHING) == (("CPUExecutionProvider", {}),)


def test_a_device_that_is_not_there_is_refused_naming_those_that_are() -> None:
    with pytest.raises(ConfigError, match="'cuda:1' on this machine; it offers: cpu, directml"):
        choose_providers(
            Device(kind="cuda", index=1), ["DmlExecutionProvider", "CPUExecutionProvider"]
        )


@pytest.mark.parametrize(
    ("datatype", "onnx_type"),
    [
        ("FP16", TensorProto.FLOAT16),
        ("BF16", TensorProto.BFLOAT16),
        ("FP64", TensorProto.DOUBLE),
        ("INT8", TensorProto.INT8),
        ("UINT64", TensorProto.UINT64),
    ],
)
def test_numbers_of_every_width_go_in_and_come_out(
    datatype: Datatype, onnx_type: int, tmp_path: Path
) -> None:
    save_onnx(tmp_path / "model.onnx", onnx_type)
    engine = loaded(tmp_path, signature=signature(datatype))
    x = np.array([[0, 1, 2, 3], [4, 5, 6, 7]], dtype=NUMPY_DTYPES[datatype])

    found = engine.infer({"x": x})["y"]

    assert found.dtype == NUMPY_DTYPES[datatype]
    assert found.astype(float).tolist() == [[1, 3, 5, 7], [9, 11, 13, 15]]


def test_text_goes_in_and_comes_out_as_utf8(tmp_path: Path) -> None:
    save_onnx(tmp_path / "model.onnx", TensorProto.STRING, node="Identity")
    engine = loaded(tmp_path, signature=signature("BYTES"))
    words = bytes_array(["grün".encode(), b"", b"a", b"b"], (1, 4))

    assert engine.infer({"x": words})["y"].tolist() == words.tolist()
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        engine.infer({"x": bytes_array([b"\xff"] * 4, (1, 4))})
    assert engine.infer({"x": words})["y"].tolist() == words.tolist()


def test_a_fixed_batch_in_the_graph_is_refused_at_start(tmp_path: Path) -> None:
    save_onnx(tmp_path / "model.onnx", batch=1)

    with pytest.raises(ConfigError, match="input 'x': dimension 0 is any size"):
        loaded(tmp_path)


def test_a_model_without_a_batch_dimension_is_run_as_it_is(tmp_path: Path) -> None:
    save_onnx(tmp_path / "model.onnx", batch=2)
    engine = loaded(tmp_path, batched=False, signature=signature("FP32", (2, 4), (2, 4)))
    engine.warm_up((1, 8))

    assert engine.infer({"x": np.ones((2, 4), np.float32)})["y"].tolist() == [[3.0] * 4] * 2


def test_the_datatype_of_the_card_is_compared_with_the_graphs(tmp_path: Path) -> None:
    save_onnx(tmp_path / "model.onnx", TensorProto.FLOAT16)

    with pytest.raises(ConfigError, match="input 'x': FP32 in the card, FP16 in the artefact"):
        loaded(tmp_path)


def gather_from_a_table(folder: Path, location: str) -> None:
    """`y = table[x]` with the table of 4 x 4 in a file of its own."""
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[4, 4])
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value=location)
    takes = helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    save_graph(folder / "model.onnx", helper.make_graph([node], "table", [takes], [gives], [table]))


TABLE_SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
}


def test_weights_in_a_file_beside_it_are_found_and_counted(tmp_path: Path) -> None:
    (tmp_path / "model.onnx.data").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    gather_from_a_table(tmp_path, "model.onnx.data")
    engine = loaded(tmp_path, signature=TABLE_SIGNATURE)

    assert engine.infer({"x": np.array([2])})["y"].tolist() == [[0, 0, 1, 0]]
    assert engine.facts.weight_bytes == 64 + (tmp_path / "model.onnx").stat().st_size


@pytest.mark.parametrize("kind", ["above", "absolute"])
def test_weights_outside_the_models_folder_are_refused(kind: str, tmp_path: Path) -> None:
    outside = tmp_path / "secret.bin"
    outside.write_bytes(np.eye(4, dtype=np.float32).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    gather_from_a_table(folder, "../secret.bin" if kind == "above" else str(outside))

    with pytest.raises(ConfigError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        loaded(folder, signature=TABLE_SIGNATURE)


def test_an_index_beyond_the_table_is_the_callers_mistake(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    gather_from_a_table(tmp_path, "table.bin")
    engine = loaded(tmp_path, signature=TABLE_SIGNATURE)

    with pytest.raises(InvalidRequest, match="out of data bounds"):
        engine.infer({"x": np.array([9])})
    assert engine.infer({"x": np.array([0])})["y"].tolist() == [[1, 0, 0, 0]]
    assert capfd.readouterr().err == ""


def test_an_optimisation_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    made = card(format="onnx", artefact="model.onnx")
    with pytest.raises(ConfigError, match="allowed: all, extended, basic, none"):
        OnnxRuntimeEngine(
            EngineSetup(card=made, folder=tmp_path, options={"graph_optimization": "most"})
        )
