"""What a search does with the model that it was given, and to the process that asked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.export.module import export_module
from cluster.optimization.gate.gate import GateLimits
from cluster.optimization.measure.variant import opened
from cluster.optimization.search.keep import add_to_store, keep
from cluster.optimization.search.report import OptimizeReport
from tests.cluster.optimization.search.test_optimize import by_name, data_of, search
from tests.cluster.optimization.tiny_nets import TinyMlp, exported, rows

STRICT = GateLimits(min_cosine=1.0)
LOSSY = ("onnxruntime-int8-dynamic",)


class Scaled(nn.Module):
    """Of pictures of any size; `scale` is neither a weight nor told by its `repr`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.drop = nn.Dropout(0.5)
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.drop(torch.relu(self.conv(x))).mean((2, 3)) * self.scale
        return found


def picture(size: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)}


def of_module(module: nn.Module, tmp_path: Path, **wish: object) -> OptimizeReport:
    return search(module, tmp_path, recipes=("onnxruntime-fp32",), **wish)


def test_the_same_module_for_other_inputs_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    module = Scaled()
    of_module(module, tmp_path, example=picture(16))

    same = of_module(module, tmp_path, example=picture(16))
    larger = of_module(module, tmp_path, example=picture(24))
    renamed = of_module(module, tmp_path, example={"image": picture(16)["x"]})

    assert by_name(same)["onnxruntime-fp32"].was_cached
    for other in (larger, renamed):
        found = by_name(other)["onnxruntime-fp32"]
        assert (found.status, found.was_cached) == ("measured", False), found.reason


def test_a_plain_attribute_that_changes_the_answers_changes_the_cache_key(tmp_path: Path) -> None:
    module = Scaled()
    of_module(module, tmp_path, example=picture(16))
    module.scale = -2.0

    found = by_name(of_module(module, tmp_path, example=picture(16)))["onnxruntime-fp32"]

    assert found.status == "measured", found.reason


def test_the_callers_torch_is_as_it_was_after_a_search(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    module = Scaled()
    module.train()
    module.conv.eval()  # a layer that is frozen
    torch.set_num_threads(2)
    try:
        of_module(module, tmp_path, example=picture(16), threads=1)

        assert torch.get_num_threads() == 2
        assert (module.training, module.drop.training, module.conv.training) == (True, True, False)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("example", [np.ones((1, 3, 8, 8), np.float32), {}])
def test_an_example_without_names_says_how_to_give_one(tmp_path: Path, example: object) -> None:
    with pytest.raises(ConfigError, match="give one row of each input by its name"):
        of_module(Scaled(), tmp_path, example=example)


def test_an_original_that_had_to_be_exported_outlives_the_search(tmp_path: Path) -> None:
    program = torch.export.export(TinyMlp(), (torch.ones(1, 64),))
    torch.export.save(program, tmp_path / "net.pt2")

    report = search(tmp_path / "net.pt2", tmp_path, recipes=LOSSY, limits=STRICT)

    assert report.chosen.is_reference
    assert report.chosen.variant is not None
    with opened(report.chosen.variant) as run:
        assert run(rows(TinyMlp(), 1))
    card = add_to_store(report, ModelStore(tmp_path / "store"), "kept")
    assert (tmp_path / "store" / "kept" / "1" / card.artefact).is_file()


def test_a_program_of_torch_is_compared_with_torch_running_it(tmp_path: Path) -> None:
    program = torch.export.export(TinyMlp(), (torch.ones(1, 64),))
    torch.export.save(program, tmp_path / "net.pt2")

    report = search(tmp_path / "net.pt2", tmp_path, recipes=("onnxruntime-fp32",), num_rounds=1)

    found = {each.name: (each.engine, each.status) for each in report.candidates}
    assert found == {
        "original": ("torch", "measured"),
        "onnxruntime-fp32": ("onnxruntime", "measured"),
    }


@pytest.mark.parametrize("name", ["my model", "../outside", "", "-x"])
def test_a_name_that_the_store_could_not_read_is_refused_before_the_search(
    tmp_path: Path, name: str
) -> None:
    exported(TinyMlp(), tmp_path)
    out = tmp_path / "out"

    done = CliRunner().invoke(
        app, ["optimize", str(tmp_path / "model.onnx"), f"--add={name}", f"--out={out}"]
    )

    assert done.exit_code == 2
    assert "is no name for a model" in done.stderr
    assert not out.exists()


def test_of_the_callers_folder_only_the_model_is_kept(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    exported(TinyMlp(), home)
    (home / "thesis.txt").write_text("mine")
    report = search(home / "model.onnx", tmp_path, recipes=LOSSY, limits=STRICT)
    assert report.chosen.is_reference

    keep(report, tmp_path / "out")
    add_to_store(report, ModelStore(tmp_path / "store"), "kept")

    assert not list(tmp_path.glob("out/thesis.txt"))
    assert not list(tmp_path.glob("store/**/thesis.txt"))
    assert (tmp_path / "out" / "model.onnx").is_file()


def test_candidates_of_one_file_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        exported(TinyMlp(), tmp_path / folder)
    others = (tmp_path / "b" / "model.onnx", tmp_path / "c" / "model.onnx")

    report = search(
        tmp_path / "a" / "model.onnx", tmp_path, recipes=("onnxruntime-int8-weights",),
        data=data_of(TinyMlp()), candidates=others,
    )  # fmt: skip

    assert [each.name for each in report.candidates] == [
        "original",
        "onnxruntime-int8-weights",
        "model-2/onnxruntime-int8-weights",
        "model-3/onnxruntime-int8-weights",
    ]
    timed = [each.timing for each in report.candidates if each.timing is not None]
    assert len({id(timing) for timing in timed}) == len(report.candidates)


class Renamed(TinyMlp):
    """The same task, the input under another name."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(rows)
        return scores


def test_a_candidate_with_an_input_of_another_name_takes_its_own_of_the_data(
    tmp_path: Path,
) -> None:
    exported(TinyMlp(), tmp_path)
    (tmp_path / "other").mkdir()
    columns = rows(TinyMlp(), 1)
    export_module(Renamed(), {"rows": columns["x"]}, tmp_path / "other", name="other")
    both = data_of(TinyMlp(), 8)
    items = tuple({**each, "rows": each["x"]} for each in both.items)

    report = search(
        tmp_path / "model.onnx", tmp_path, recipes=("onnxruntime-fp32",), num_rounds=1,
        data=replace(both, items=items), candidates=(tmp_path / "other" / "model.onnx",),
        measure_memory=True,
    )  # fmt: skip

    assert [each.status for each in report.candidates] == ["measured", "measured"]
    assert all(each.peak_bytes > 0 for each in report.candidates)


def test_rows_of_a_call_that_a_model_without_a_batch_does_not_take_are_told(
    tmp_path: Path,
) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3, 4]) for name in "xy"
    ]
    graph = onnx.helper.make_graph([node], "one", infos[:1], infos[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.save(model, str(tmp_path / "one.onnx"))

    report = search(
        tmp_path / "one.onnx", tmp_path, recipes=("onnxruntime-fp32",), batch_size=8, num_rounds=1
    )

    assert report.batch_size == 1
    assert "no batch dimension" in report.ignored["batch_size"]


def test_a_wrong_candidate_is_named_before_anything_is_built(tmp_path: Path) -> None:
    exported(TinyMlp(), tmp_path)
    shutil.copyfile(tmp_path / "model.onnx", tmp_path / "other.onnx")

    with pytest.raises(ConfigError, match=r"absent\.onnx: no such file"):
        search(
            tmp_path / "model.onnx", tmp_path, recipes=LOSSY, data=data_of(TinyMlp()),
            candidates=(tmp_path / "other.onnx", tmp_path / "absent.onnx"),
        )  # fmt: skip

    assert not (tmp_path / "cache").exists()
