"""Models in other formats."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.export.convert import convert
from cluster.optimization.export.whole import write_whole
from tests.contracts.tiny_models import save_onnx

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def made(source: Path, target: Path, **more: object) -> Path:
    files = convert(
        source,
        target,
        store=ModelStore(target.parent),
        workspace=target.parent / "w",
        **more,  # type: ignore[arg-type]
    )
    return files[0]


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


@pytest.fixture
def in_pieces(graph: Path, tmp_path: Path) -> Path:
    """The graph with each of its weights in a file of its own."""
    folder = tmp_path / "pieces"
    folder.mkdir()
    model = onnx.load(str(graph))
    for each in model.graph.initializer:
        each.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(each), each.name))
    onnx.save(
        model,
        folder / "tiny.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=0,
    )
    return folder / "tiny.onnx"


def test_weights_beside_the_graph_come_along_under_its_new_name(
    in_pieces: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "out.onnx"

    done = CliRunner().invoke(app, ["convert", str(in_pieces), str(target), "--json"])

    said = json.loads(done.stdout)
    files = [Path(each) for each in said["files"]]
    assert files[0] == target
    assert sorted(files) == sorted(target.parent.iterdir())
    assert len(files) > 1
    assert all(file.name.startswith("out.onnx") for file in files)
    assert said["bytes"] == sum(file.stat().st_size for file in files)
    # By itself: what it came from may go.
    shutil.rmtree(in_pieces.parent)
    np.testing.assert_array_equal(
        onnxruntime.InferenceSession(target).run(None, {"x": X})[0], 2 * X + 1
    )


def test_weights_that_are_missing_are_named_and_nothing_is_written(
    in_pieces: Path, tmp_path: Path
) -> None:
    weights = next(each for each in in_pieces.parent.iterdir() if each != in_pieces)
    weights.unlink()

    done = CliRunner().invoke(app, ["convert", str(in_pieces), str(tmp_path / "out.onnx")])

    assert done.exit_code == 2
    assert weights.name in done.stderr
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("target", "taken"), [("out.xml", "out.bin"), ("out.onnx", "out.onnx.0.data")]
)
def test_a_file_of_the_callers_that_has_the_weights_name_is_left_as_it_is(
    in_pieces: Path, tmp_path: Path, target: str, taken: str
) -> None:
    (tmp_path / taken).write_text("mine")

    done = CliRunner().invoke(app, ["convert", str(in_pieces), str(tmp_path / target)])

    assert done.exit_code == 2
    assert f"{taken} exists; it was left as it is" in done.stderr
    assert (tmp_path / taken).read_text() == "mine"
    assert not (tmp_path / target).exists()


def test_what_was_begun_beside_a_file_is_gone_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "out.html").write_text("before")

    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "out.html", "half of it, then \ud800")

    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"out.html": "before"}
