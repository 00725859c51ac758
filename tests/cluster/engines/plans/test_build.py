"""What can be said of building plans where TensorRT is not."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.engines.engine import EngineSetup
from cluster.engines.plans.buffers import TensorBuffer
from cluster.engines.plans.build import load_tensorrt, parse_failure, timing_file
from cluster.engines.table import make_engine
from cluster.errors import ConfigError
from cluster.tensors import TensorSpec
from tests.contracts.tiny_models import card, save_onnx

IS_INSTALLED = find_spec("tensorrt") is not None


@dataclass(frozen=True)
class ParserError:
    """The accessors of TensorRT 10's `ParserError`."""

    name: str
    operator: str
    says: str

    def node(self) -> int:
        return 7

    def node_name(self) -> str:
        return self.name

    def node_operator(self) -> str:
        return self.operator

    def desc(self) -> str:
        return self.says


@pytest.mark.parametrize(
    ("errors", "says"),
    [
        ([("conv_3", "Conv", "no plugin")], "does not take node 'conv_3' (Conv): no plugin"),
        ([("", "Where", "bad type")], "does not take node 7 (Where): bad type"),
        ([("", "", "no such file")], "does not take the graph: no such file"),
        ([("a", "If", "x"), ("b", "If", "y")], "node 'a' (If): x (and 1 more)"),
        ([], "TensorRT cannot read it as ONNX"),
    ],
)
def test_a_parser_error_names_file_and_node(errors: list[tuple[str, str, str]], says: str) -> None:
    found = parse_failure(Path("model.onnx"), [ParserError(*each) for each in errors])

    assert found.message.startswith("model.onnx: ")
    assert says in found.message


def test_timings_of_another_gpu_or_version_are_in_another_file(tmp_path: Path) -> None:
    files = {
        timing_file(tmp_path, tensorrt=version, gpu=gpu)
        for version in ("10.9.0", "10.13.3")
        for gpu in ("NVIDIA H200", "NVIDIA L4")
    }

    assert len(files) == 4
    assert all(each.parent == tmp_path / "timing" for each in files)


@pytest.mark.skipif(IS_INSTALLED, reason="tensorrt is installed here")
def test_without_tensorrt_the_engine_says_what_to_install(tmp_path: Path) -> None:
    save_onnx(tmp_path / "model.onnx")
    setup = EngineSetup(card=card(format="onnx", artefact="model.onnx"), folder=tmp_path)

    with pytest.raises(ConfigError, match=r"'tensorrt' is not installed.*squadron-serve\[gpu,"):
        make_engine("tensorrt", setup)
    with pytest.raises(ConfigError, match="cannot load TensorRT: No module named 'tensorrt'"):
        load_tensorrt()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_the_engine_says_so_before_it_looks_for_tensorrt(tmp_path: Path) -> None:
    from cluster.engines.tensorrt import TensorRtEngine

    save_onnx(tmp_path / "model.onnx")
    engine = TensorRtEngine(
        EngineSetup(card=card(format="onnx", artefact="model.onnx"), folder=tmp_path)
    )

    with pytest.raises(ConfigError, match="offers: nothing"):
        engine.load()


def test_text_and_doubles_are_refused_by_name(tmp_path: Path) -> None:
    from cluster.engines.tensorrt import TensorRtEngine

    wide = {"name": "x", "datatype": "FP64", "shape": [-1, 4]}
    setup = EngineSetup(
        card=card(
            format="onnx", artefact="m.onnx", signature={"inputs": [wide], "outputs": [wide]}
        ),
        folder=tmp_path,
    )

    with pytest.raises(ConfigError, match="'x' is FP64 in the card"):
        TensorRtEngine(setup)


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "BF16", "INT64", "BOOL"])
def test_a_buffer_gives_back_what_was_put_in_and_grows(datatype: str) -> None:
    from cluster.tensors import NUMPY_DTYPES

    spec = TensorSpec(name="x", datatype=datatype, shape=(-1, 3))  # type: ignore[arg-type]
    buffer = TensorBuffer(spec, torch.device("cpu"))
    for rows in (1, 4, 2):
        array = (np.arange(rows * 3).reshape(rows, 3) % 2).astype(NUMPY_DTYPES[spec.datatype])
        buffer.put(array)
        buffer.fetch(array.size)
        found = buffer.read(array.shape)

        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        assert buffer.address
