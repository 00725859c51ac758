"""Files of stages whose model lies where nobody may write."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from cluster.client.staged.backend import StagedBackend
from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.engines.sharded.layers import layered_model
from cluster.engines.sharded.onnx.cut import segments, stage_files
from cluster.engines.sharded.stages import let_go
from cluster.errors import ConfigError

CARD = ModelCard.model_validate(
    {
        "name": "two",
        "format": "onnx",
        "artefact": "model.onnx",
        "signature": {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
        },
    }
)
RUNS = [range(1), range(1, 2)]
ANOTHER_PROCESS = """
import sys
from pathlib import Path
from cluster.client.staged.backend import StagedBackend
from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.engines.sharded.onnx.cut import stage_files
print(*stage_files(Path(sys.argv[1]), [range(1), range(1, 2)]), sep=chr(10), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for /tmp."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def model_without_room(folder: Path) -> Path:
    """A graph of two layers; a file has the name of the folder that would be made beside it."""
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "weight"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in "xy"]
    graph = helper.make_graph(nodes, "two", ends[:1], ends[1:], [weight])
    made = folder / "model" / "model.onnx"
    made.parent.mkdir()
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), made)
    (made.parent / ".stages").write_bytes(b"")
    assert segments(made)[0].num_layers == 2
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return model_without_room(tmp_path)


def ours(scratch: Path) -> list[Path]:
    """Libraries leave files of their own there."""
    return list(scratch.glob("squadron-stages-*"))


def test_a_private_folder_goes_with_its_last_user(file: Path, scratch: Path) -> None:
    paths = stage_files(file, RUNS)
    assert stage_files(file, RUNS) == paths
    (folder,) = ours(scratch)
    assert {Path(path).parent for path in paths} == {folder}
    assert folder.stat().st_mode & 0o777 == 0o700

    let_go(paths)
    assert all(Path(path).is_file() for path in paths)

    let_go(paths)
    assert not ours(scratch)
    let_go(paths)


def test_files_beside_their_model_stay(file: Path, scratch: Path) -> None:
    (file.parent / ".stages").unlink()

    paths = stage_files(file, RUNS)
    let_go(paths)

    assert all(Path(path).is_relative_to(file.parent) for path in paths)
    assert all(Path(path).is_file() for path in paths)
    assert not ours(scratch)


def test_what_a_killed_process_left_is_used_again_and_then_removed(
    file: Path, scratch: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER_PROCESS, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = tuple(other.stdout.readline().strip() for _ in RUNS)
        written = [Path(path).stat().st_mtime_ns for path in theirs]

        mine = stage_files(file, RUNS)
        let_go(mine)
        assert mine == theirs
        assert all(Path(path).is_file() for path in theirs)  # in use
        other.kill()

    mine = stage_files(file, RUNS)
    assert mine == theirs
    assert [Path(path).stat().st_mtime_ns for path in mine] == written
    let_go(mine)
    assert not ours(scratch)


def test_a_folder_that_others_may_write_is_not_trusted(file: Path, scratch: Path) -> None:
    paths = stage_files(file, RUNS)
    let_go(paths)
    squatted = Path(paths[0]).parent
    squatted.mkdir()
    squatted.chmod(0o777)

    found = stage_files(file, RUNS)
    assert not any(Path(path).is_relative_to(squatted) for path in found)
    let_go(found)

    assert ours(scratch) == [squatted]
    squatted.rmdir()
    squatted.symlink_to(file.parent)
    found = stage_files(file, RUNS)
    assert not any(Path(path).is_relative_to(squatted) for path in found)
    let_go(found)
    assert ours(scratch) == [squatted]


def test_a_model_that_cannot_be_cut_leaves_no_folder(file: Path, scratch: Path) -> None:
    file.write_bytes(b"no graph")

    with pytest.raises(ConfigError, match="cannot be cut"):
        stage_files(file, RUNS)

    assert not ours(scratch)


def test_a_client_that_holds_the_stages_itself_leaves_no_folder(file: Path, scratch: Path) -> None:
    placement = PlacementConfig(strategy="layer", shards=2)
    backend = StagedBackend(CARD, file.parent, placement)
    assert len(ours(scratch)) == 1

    backend.replace(placement)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert_array_equal(backend.infer({"x": x}, ())["y"], x)
    backend.close()

    assert not ours(scratch)


def test_a_graph_is_opened_by_a_process_that_is_not_this_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("the graph was opened here")

    monkeypatch.setattr(onnx, "load", never)

    layered = layered_model(CARD, file.parent)

    assert (layered.num_layers, layered.layer_bytes) == (2, (64, 64))
    assert not layered.can_be_streamed


def test_what_its_process_says_of_a_graph_that_is_none_is_said(file: Path) -> None:
    file.write_bytes(b"no graph")

    with pytest.raises(ConfigError, match=r"model\.onnx: cannot be cut: "):
        layered_model(CARD, file.parent)


def test_weights_beside_the_graph_and_in_it_give_the_same_layers_and_stages(
    tmp_path: Path, scratch: Path
) -> None:
    """They are let go while shapes are worked out, and must come back into the right stage."""
    random = np.random.default_rng(0)
    weights = [random.standard_normal((64, 64)).astype(np.float32) for _ in range(2)]
    nodes = [helper.make_node("MatMul", [f"h{n}", f"w{n}"], [f"h{n + 1}"]) for n in range(2)]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 64]) for n in ("h0", "h2")
    ]
    held = [numpy_helper.from_array(weight, f"w{n}") for n, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "two", ends[:1], ends[1:], held)
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    x = random.standard_normal((3, 64)).astype(np.float32)
    for name, beside in (("in", False), ("beside", True)):
        file = tmp_path / name / "model.onnx"
        file.parent.mkdir()
        onnx.save(made, file, save_as_external_data=beside, size_threshold=0)

        layered, points = segments(file)
        values = x
        for path in stage_files(file, RUNS):
            session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            (given,) = session.get_inputs()
            (values,) = session.run(None, {given.name: values})

        assert layered.layer_bytes == (64 * 64 * 4,) * 2
        assert layered.layer_cost == (64 * 64,) * 2
        assert [point.tensor for point in points] == ["h1"]
        assert_allclose(values, x @ weights[0] @ weights[1], rtol=1e-5)
