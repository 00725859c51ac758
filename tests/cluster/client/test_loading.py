"""Everything that `load_model` takes, and what it says of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cluster.client import Client
from cluster.errors import ConfigError, EngineFailed, InvalidRequest
from tests.cluster.client.places import Place
from tests.cluster.engines.sharded.directories import bert, expected, inputs_of, saved, vit
from tests.cluster.optimization.tiny_nets import TinyMlp

PYTHON_CLASS = """
class Triple:
    def load(self, context):
        self.factor = 3.0

    def infer(self, inputs):
        return {"y": (self.factor * inputs["x"]).astype("float32")}
"""
TORCH_CLASS = """
import torch


class Halves(torch.nn.Module):
    def forward(self, x):
        return x / 2
"""


def test_a_torch_module_runs_eagerly_and_says_what_it_takes() -> None:
    module = TinyMlp()
    rows = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    with Client(device="cpu") as client, client.load_model(module) as model:
        (found,) = model.predict(x=rows).values()

        assert np.allclose(found, module(torch.from_numpy(rows)).detach().numpy(), atol=1e-6)
        assert model.signature.inputs[0].shape == (-1, 64)
        with pytest.raises(InvalidRequest, match=r"\[-1, 64\]"):
            model.predict(x=rows[:, :3])
        with pytest.raises(InvalidRequest, match="unexpected output 'q'"):
            model.predict(x=rows, outputs=["q"])


def test_a_module_without_example_inputs_says_that_it_needs_one() -> None:
    with Client(device="cpu") as client, pytest.raises(ConfigError, match="inputs are not known"):
        client.load_model(nn.Linear(4, 2))


def test_a_module_that_fails_is_told_and_goes_on() -> None:
    class Picky(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if bool((x == 13).any()):
                raise ValueError("unlucky")
            return x

    with Client(device="cpu") as client:
        model = client.load_model(Picky(), example={"x": np.zeros((1, 2), np.float32)})
        with pytest.raises(EngineFailed, match="unlucky"):
            model.predict([[13.0, 0.0]])
        assert next(iter(model.predict([[1.0, 2.0]]).values())).tolist() == [[1, 2]]


def test_a_class_of_ones_own_is_loaded_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PYTHON_CLASS)
    (tmp_path / "torch_one.py").write_text(TORCH_CLASS)
    with Client(device="cpu") as client:
        triple = client.load_model(
            f"{tmp_path}/mine.py:Triple", inputs=["x:FP32:-1,2"], outputs=["y:FP32:-1,2"]
        )
        halves = client.load_model(f"{tmp_path}/torch_one.py:Halves", inputs=["x:FP32:-1,2"])

        assert triple.predict([[1, 2]])["y"].tolist() == [[3, 6]]
        assert next(iter(halves.predict([[1, 2]]).values())).tolist() == [[0.5, 1.0]]


def test_an_onnx_file_and_a_folder_of_the_store_are_the_same_model(place: Place) -> None:
    folder = place.store / "mlp" / "1"
    rows = np.ones((2, 64), np.float32)
    with place.client() as client:
        answers = [
            next(iter(client.load_model(given).predict(rows).values()))
            for given in ("mlp", "mlp/1", folder, str(folder / "model.onnx"))
        ]

    for answer in answers:
        assert np.array_equal(answer, answers[0])


def test_an_encoders_directory_is_exported_once_and_then_taken_from_the_cache(
    tmp_path: Path,
) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    model = bert()
    saved(model, tmp_path / "bert")
    words = {"[PAD]": 0, "[UNK]": 1, "film": 2}
    Tokenizer(WordLevel(words, unk_token="[UNK]")).save(str(tmp_path / "bert" / "tokenizer.json"))
    kept = tmp_path / "cache"
    with Client(device="cpu") as client:
        client.enable_model_cache(kept, 1.0)
        client.load_model(tmp_path / "bert", use_cache=False)
        assert not list(kept.glob("??/*/entry.json"))
        first = client.load_model(tmp_path / "bert")
        (entry,) = kept.glob("??/*/entry.json")
        written = entry.stat().st_ino
        again = client.load_model(tmp_path / "bert")

        assert [each.stat().st_ino for each in kept.glob("??/*/entry.json")] == [written]
        a, b = first.predict("film"), again.predict("film")
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_vision_transformers_directory_is_loaded_as_it_is(tmp_path: Path) -> None:
    model = vit()
    saved(model, tmp_path)
    inputs = inputs_of("vit")
    with Client(device="cpu") as client:
        found = client.load_model(tmp_path).predict(inputs)["logits"]

    assert np.allclose(found, expected(model, inputs).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("given", "said"),
    [("nobody", "nobody"), ("mlp/7", "no version 7"), (12, "is no model"), ("", "give")],
)
def test_what_is_no_model_is_told_with_what_can_be_given(
    place: Place, given: object, said: str
) -> None:
    with place.client() as client, pytest.raises(ConfigError, match=said):
        client.load_model(given)  # type: ignore[arg-type]


def test_a_damaged_file_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")

    with Client(device="cpu") as client, pytest.raises(ConfigError, match=r"broken\.onnx"):
        client.load_model(tmp_path / "broken.onnx")


def test_nothing_is_left_behind(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with place.client() as client:
        client.load_model(str(place.store / "mlp" / "1" / "model.onnx"))
        assert list(tmp_path.glob("squadron-client-*"))
    assert not list(tmp_path.iterdir())
