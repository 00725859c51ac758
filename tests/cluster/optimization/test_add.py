from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cluster.config.model_card import SignatureCard, TensorCard
from cluster.config.store import ModelStore, sha256_of
from cluster.engines.engine import EngineSetup
from cluster.engines.table import make_engine
from cluster.errors import ConfigError
from cluster.optimization.add import add_model
from tests.cluster.optimization.artefacts import Double, write_onnx, write_pt2

FLAGS: dict[str, list[str]] = {"inputs": ["x:FP32:-1,4"], "outputs": ["y:FP32:-1,4"]}
X_TO_Y = SignatureCard(
    inputs=[TensorCard(name="x", datatype="FP32", shape=[-1, 4])],
    outputs=[TensorCard(name="y", datatype="FP32", shape=[-1, 4])],
)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def test_onnx_file_says_its_own_signature(tmp_path: Path, store: ModelStore) -> None:
    source = write_onnx(tmp_path / "my model.onnx")
    card = add_model(source, store)
    assert (card.name, card.version, card.format) == ("my-model", "1", "onnx")
    assert card.signature == X_TO_Y
    assert card.batched
    assert card.sha256 == sha256_of(source)
    assert store.verify("my-model") == card


def test_next_number_for_other_bytes_and_the_same_for_the_same(
    tmp_path: Path, store: ModelStore
) -> None:
    first, other = write_onnx(tmp_path / "a.onnx"), write_onnx(tmp_path / "b.onnx", factor=3.0)
    assert add_model(first, store, "m").version == "1"
    assert add_model(other, store, "m").version == "2"
    assert add_model(first, store, "m").version == "1"
    assert [card.version for card in store.versions("m")] == ["1", "2"]


def test_the_same_graph_with_other_weights_beside_it_is_the_next_version(
    tmp_path: Path, store: ModelStore
) -> None:
    source = write_onnx(tmp_path / "a.onnx", factor=2.0)
    model = onnx.load(source)
    (factor,) = model.graph.initializer
    factor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(factor), "factor"))
    onnx.save(model, source, save_as_external_data=True, location="w", size_threshold=0)
    assert add_model(source, store, "m").version == "1"
    (tmp_path / "w").write_bytes(np.float32(3.0).tobytes())

    card = add_model(source, store, "m")

    assert card.version == "2"
    engine = make_engine("onnxruntime", EngineSetup(card=card, folder=store.folder("m", "2")))
    engine.load()
    answer = engine.infer({"x": np.ones((1, 4), np.float32)})
    np.testing.assert_array_equal(answer["y"], np.full((1, 4), 3.0))
    assert add_model(source, store, "m").version == "2"


def test_version_that_is_taken_is_not_overwritten(tmp_path: Path, store: ModelStore) -> None:
    add_model(write_onnx(tmp_path / "a.onnx"), store, "m", "7")
    with pytest.raises(ConfigError, match="m version 7 is in the store"):
        add_model(write_onnx(tmp_path / "b.onnx", factor=3.0), store, "m", "7")


def test_onnx_names_cannot_be_changed_by_flags(tmp_path: Path, store: ModelStore) -> None:
    source = write_onnx(tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match="has no input 'z'; it has x"):
        add_model(source, store, inputs=["z:FP32:-1,4"])


def test_broken_onnx_file_is_named(tmp_path: Path, store: ModelStore) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a graph")
    with pytest.raises(ConfigError, match=r"a\.onnx: onnxruntime cannot load it"):
        add_model(tmp_path / "a.onnx", store)
    assert store.list() == ()


def test_exported_program_says_its_own_signature(tmp_path: Path, store: ModelStore) -> None:
    card = add_model(write_pt2(tmp_path / "double.pt2"), store)
    assert card.format == "torch_export"
    assert card.signature.inputs == X_TO_Y.inputs
    assert [(t.datatype, t.shape) for t in card.signature.outputs] == [("FP32", [-1, 4])]
    assert card.batched


def test_outputs_of_an_exported_program_can_be_named(tmp_path: Path, store: ModelStore) -> None:
    source = write_pt2(tmp_path / "double.pt2")
    assert add_model(source, store, outputs=["y:FP32:-1,4"]).signature == X_TO_Y


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_takes_its_signature_from_the_flags(tmp_path: Path, store: ModelStore) -> None:
    import torch

    # Made here with deprecated calls; what reads it must not warn on its own.
    traced = torch.jit.trace(Double(), torch.zeros(2, 4))
    torch.jit.save(traced, tmp_path / "double.pt")
    card = add_model(tmp_path / "double.pt", store, **FLAGS)
    assert (card.format, card.artefact) == ("torchscript", "double.pt")
    assert card.signature == X_TO_Y


def test_pickle_is_no_torchscript(tmp_path: Path, store: ModelStore) -> None:
    import torch

    torch.save({"weight": torch.zeros(2)}, tmp_path / "state.pt")
    with pytest.raises(ConfigError, match=r"state\.pt: not a TorchScript file\. A state dict or"):
        add_model(tmp_path / "state.pt", store, **FLAGS)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_signature_that_the_model_refuses_is_not_stored(tmp_path: Path, store: ModelStore) -> None:
    import torch

    traced = torch.jit.trace(torch.nn.Linear(4, 4), torch.zeros(2, 4))
    torch.jit.save(traced, tmp_path / "wide.pt")
    with pytest.raises(ConfigError, match=r"does not run with inputs x:FP32:-1,5: .*--input"):
        add_model(tmp_path / "wide.pt", store, inputs=["x:FP32:-1,5"], outputs=["y:FP32:-1,4"])
    assert store.list() == ()


def test_class_without_load_is_refused_with_the_contract(tmp_path: Path, store: ModelStore) -> None:
    source = tmp_path / "my_code.py"
    source.write_text("class Double:\n    def infer(self, inputs): ...\n")
    with pytest.raises(ConfigError, match=r"class Double has no method 'load'; a model has load"):
        add_model(f"{source}:Double", store, **FLAGS)


def test_class_that_the_readme_shows_is_served(
    tmp_path: Path, store: ModelStore, root: Path
) -> None:
    shown = (root / "README.md").read_text().partition("```python\nclass Double:")[2]
    (tmp_path / "my_code.py").write_text("class Double:" + shown.partition("```")[0])
    card = add_model(f"{tmp_path / 'my_code.py'}:Double", store, **FLAGS)
    engine = make_engine("python", EngineSetup(card=card, folder=store.folder(card.name)))
    engine.load()
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(engine.infer({"x": x})["y"], 2 * x)


def test_class_that_only_streams_is_decoupled(tmp_path: Path, store: ModelStore) -> None:
    source = tmp_path / "my_code.py"
    source.write_text(
        "class Base:\n    def load(self, context): ...\n"
        "class Count(Base):\n    def stream(self, inputs, parameters): ...\n"
    )
    assert add_model(f"{source}:Count", store, **FLAGS).decoupled


def test_class_in_a_file_is_copied_and_named(tmp_path: Path, store: ModelStore) -> None:
    source = tmp_path / "my_code.py"
    source.write_text(
        "class Double:\n    def load(self, context): ...\n    def infer(self, inputs): ...\n"
    )
    card = add_model(f"{source}:Double", store, **FLAGS)
    assert (card.name, card.format) == ("my_code-double", "python")
    assert (card.artefact, card.python_class) == ("my_code.py", "my_code.py:Double")
    assert card.signature == X_TO_Y
    assert (store.folder(card.name) / "my_code.py").read_text() == source.read_text()


def test_class_in_a_module_is_only_named(store: ModelStore) -> None:
    card = add_model("collections.abc:Sized", store, "sized", **FLAGS)
    assert (card.artefact, card.sha256, card.python_class) == ("", "", "collections.abc:Sized")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("absent.onnx", "no such file"),
        ("absent.py:Double", "no such file"),
        ("no.such.module:Double", "no module 'no.such.module'"),
        ("collections.abc:Sized", "does not name its tensors"),
    ],
)
def test_path_that_leads_nowhere_says_so(path: str, said: str, store: ModelStore) -> None:
    flags = {} if "name its" in said else FLAGS
    with pytest.raises(ConfigError, match=said):
        add_model(path, store, **flags)


def test_unknown_kind_of_file_says_what_can_be_added(tmp_path: Path, store: ModelStore) -> None:
    (tmp_path / "model.h5").touch()
    with pytest.raises(ConfigError, match=r"can be added: \.onnx, \.pt"):
        add_model(tmp_path / "model.h5", store)


def test_name_that_would_leave_the_store_is_refused(tmp_path: Path, store: ModelStore) -> None:
    source = write_onnx(tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match="cannot be a model's name"):
        add_model(source, store, "../a")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]},
        {"model_type": "bert", "architectures": ["BertForSequenceClassification"]},
        {},
    ],
)
def test_other_architectures_are_refused_with_what_is_supported(
    tmp_path: Path, store: ModelStore, config: dict[str, object]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(
        ConfigError,
        match=r"in shards \(format huggingface\): llama \(.*encoders without a task head",
    ):
        add_model(tmp_path, store, "m")


def test_directory_without_safetensors_is_refused(tmp_path: Path, store: ModelStore) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"no model\.safetensors"):
        add_model(tmp_path, store, "m")
