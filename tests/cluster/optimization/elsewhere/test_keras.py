"""Keras and TensorFlow models as ONNX, by the TensorFlow that `make setup-tensorflow` sets up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.elsewhere.environment import interpreter, why_not
from cluster.optimization.elsewhere.keras import is_keras
from cluster.optimization.export.convert import convert
from cluster.optimization.intake.model import open_model

MAKE = """
import sys
import keras
folder = sys.argv[1]
keras.utils.set_random_seed(0)
image = keras.Input((8, 8, 1), name="image")
x = keras.layers.Conv2D(4, 3, activation="relu")(image)
x = keras.layers.BatchNormalization()(x)
x = keras.layers.Flatten()(x)
model = keras.Model(image, keras.layers.Dense(10, name="scores")(x))
model.save(f"{folder}/net.keras")
model.save(f"{folder}/net.h5")
model.export(f"{folder}/saved", verbose=False)
import numpy as np
x = np.random.default_rng(1).normal(size=(3, 8, 8, 1)).astype("float32")
np.savez(f"{folder}/check.npz", x=x, y=model.predict(x, verbose=0))
layers = [keras.Input((8, 8, 1), name="image"), keras.layers.Flatten(), keras.layers.Dense(10)]
row = keras.Sequential(layers)
row.save(f"{folder}/row.keras")
row.save(f"{folder}/row.h5")
np.savez(f"{folder}/row.npz", x=x, y=row.predict(x, verbose=0))
unsafe = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda v: v * 2)])
unsafe.save(f"{folder}/unsafe.keras")
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := why_not("tensorflow"):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("keras")
    command = [str(interpreter("tensorflow")), "-c", MAKE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-1000:]
    return folder


@pytest.mark.parametrize(
    ("name", "check"),
    [("net.keras", "check"), ("net.h5", "check"), ("saved", "check"), ("row.keras", "row"),
     ("row.h5", "row")],
)  # fmt: skip
def test_a_model_of_tensorflows_answers_as_before(
    name: str, check: str, nets: Path, tmp_path: Path
) -> None:
    (made,) = convert(
        nets / name, tmp_path / "net.onnx", store=ModelStore(tmp_path), workspace=tmp_path / "w"
    )

    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    with np.load(nets / f"{check}.npz") as known:
        (found,) = session.run(None, {session.get_inputs()[0].name: known["x"]})
        np.testing.assert_allclose(found, known["y"], atol=1e-5)


def test_it_is_opened_like_any_model(nets: Path, tmp_path: Path) -> None:
    given = open_model(nets / "net.keras", store=ModelStore(tmp_path), workspace=tmp_path)

    (spec,) = given.card.signature.inputs
    assert (spec.name, spec.shape, given.card.batched) == ("image", [-1, 8, 8, 1], True)


def test_code_inside_a_keras_file_is_not_run(nets: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?i)lambda|unsafe|deserializ"):
        open_model(nets / "unsafe.keras", store=ModelStore(tmp_path), workspace=tmp_path)


def test_a_file_that_was_cut_off_is_told(nets: Path, tmp_path: Path) -> None:
    (tmp_path / "half.keras").write_bytes((nets / "net.keras").read_bytes()[:3000])

    with pytest.raises(ConfigError, match=r"half\.keras: not a whole \.keras file"):
        open_model(tmp_path / "half.keras", store=ModelStore(tmp_path), workspace=tmp_path)


def test_without_tensorflow_the_way_to_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUADRON_TENSORFLOW_PYTHON", str(tmp_path / "none"))
    (tmp_path / "m.keras").write_bytes(b"")

    with pytest.raises(ConfigError, match="make setup-tensorflow"):
        convert(
            tmp_path / "m.keras", tmp_path / "out.onnx", store=ModelStore(tmp_path),
            workspace=tmp_path / "w",
        )  # fmt: skip
    assert not (tmp_path / "out.onnx").exists()


def test_what_is_keras_is_known_by_its_suffix_or_its_saved_model(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")

    assert is_keras(tmp_path / "saved")
    assert is_keras(Path("a.H5"))
    assert not is_keras(Path("a.onnx"))
