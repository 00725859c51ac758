"""What can be given as a model, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.add import add_model
from cluster.optimization.intake.model import GivenModel, module_sha256, open_model
from tests.cluster.optimization.tiny_nets import TinyCnn, TinyMlp, exported

SOURCE = """
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(x)

class NotOne:
    pass
"""


def given(model: object, tmp_path: Path, **more: object) -> GivenModel:
    store = ModelStore(tmp_path / "store")
    return open_model(model, store=store, workspace=tmp_path / "work", **more)  # type: ignore[arg-type]


def test_an_onnx_file_says_itself_what_it_takes(tmp_path: Path) -> None:
    exported(TinyCnn(), tmp_path)

    found = given(tmp_path / "model.onnx", tmp_path)

    assert (found.name, found.card.format, found.card.batched) == ("model", "onnx", True)
    assert found.onnx == tmp_path / "model.onnx"


def test_a_model_of_the_store_is_given_by_its_name(tmp_path: Path) -> None:
    exported(TinyCnn(), tmp_path)
    add_model(tmp_path / "model.onnx", ModelStore(tmp_path / "store"), "mine")

    assert given("mine", tmp_path).name == "mine"
    assert given("mine/1", tmp_path).card.version == "1"


def test_a_torch_module_is_exported_and_kept_as_the_baseline(tmp_path: Path) -> None:
    module = TinyMlp()

    found = given(module, tmp_path, example=module.example_inputs())

    assert found.module is module
    assert found.onnx is not None
    assert found.onnx.is_file()


def test_a_class_in_a_file_of_ones_own_is_made_with_inputs_that_the_caller_names(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.py").write_text(SOURCE)

    found = given(f"{tmp_path}/own.py:Mine", tmp_path, inputs=["x:FP32:-1,4"])

    assert found.card.batched
    assert found.card.signature.outputs[0].shape == [-1, 2]


@pytest.mark.parametrize(
    ("name", "says"), [("NotOne", "no torch.nn.Module"), ("Absent", "cannot be made")]
)
def test_a_class_that_is_no_module_is_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "own.py").write_text(SOURCE)

    with pytest.raises(ConfigError, match=says):
        given(f"{tmp_path}/own.py:{name}", tmp_path, inputs=["x:FP32:-1,4"])


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".bin", ".pt"])
def test_a_malicious_pickle_is_refused_and_never_run(tmp_path: Path, suffix: str) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "owned"),))

    file = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save(Payload(), file)
    else:
        file.write_bytes(pickle.dumps(Payload()))

    with pytest.raises(ConfigError):
        given(file, tmp_path)

    assert not (tmp_path / "owned").exists()


def test_what_is_nowhere_names_the_store_and_what_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file, and no model of that name.*\.onnx"):
        given("nothing", tmp_path)


def test_the_hash_of_a_module_is_that_of_its_weights_and_its_code() -> None:
    same, changed = TinyMlp(), TinyMlp()
    with torch.no_grad():
        changed.layers[0].bias[0] += 1e-3  # type: ignore[index, operator]

    assert module_sha256(same) == module_sha256(TinyMlp())
    assert module_sha256(same) != module_sha256(changed)
    assert module_sha256(same) != module_sha256(TinyCnn())


def test_an_operator_that_nobody_knows_is_named(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    from tests.contracts.tiny_models import save_graph

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    save_graph(
        tmp_path / "odd.onnx",
        helper.make_graph([helper.make_node("Frobnicate", ["x"], ["y"])], "g", [x], [y]),
    )

    with pytest.raises(ConfigError, match="Frobnicate"):
        given(tmp_path / "odd.onnx", tmp_path)


def test_example_inputs_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its inputs are not known"):
        given(torch.nn.Linear(2, 2), tmp_path)
    assert given(torch.nn.Linear(2, 2), tmp_path, example={"x": np.ones((1, 2), np.float32)})
