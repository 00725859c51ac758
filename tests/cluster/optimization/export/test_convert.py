"""Models in other formats."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.export.convert import convert
from tests.contracts.tiny_models import save_onnx

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def made(source: Path, target: Path, **more: object) -> Path:
    return convert(
        source,
        target,
        store=ModelStore(target.parent),
        workspace=target.parent / "w",
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    save_onnx(tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
def test_a_converted_model_answers_as_before(graph: Path, tmp_path: Path, suffix: str) -> None:
    session = onnxruntime.InferenceSession(made(graph, tmp_path / f"out{suffix}"))

    np.testing.assert_array_equal(session.run(None, {"x": X})[0], 2 * X + 1)


def test_openvinos_format_answers_as_before(graph: Path, tmp_path: Path) -> None:
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    import openvino

    compiled = openvino.Core().compile_model(str(made(graph, tmp_path / "out.xml")), "CPU")

    np.testing.assert_array_equal(compiled({"x": X})[0], 2 * X + 1)


def test_a_file_that_is_too_large_is_refused_and_not_written(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 1e-05 MB are allowed"):
        made(graph, tmp_path / "out.ort", max_bytes=10)

    assert not (tmp_path / "out.ort").exists()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("out.tflite", "is an ONNX graph; .tflite and .pte are made of a torch module"),
        ("out.pte", "For a graph there is .ort"),
        ("out.txt", "cannot tell the format by '.txt'"),
        ("tiny.onnx", "exists; it was left as it is"),
    ],
)
def test_what_cannot_be_made_says_why(graph: Path, tmp_path: Path, target: str, says: str) -> None:
    done = CliRunner().invoke(app, ["convert", str(graph), str(tmp_path / target)])

    assert done.exit_code == 2
    assert says in done.stderr
