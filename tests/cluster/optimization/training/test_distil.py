"""A smaller model taught by a larger one, exported, judged and served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.config.model_card import ModelCard, SignatureCard, TensorCard
from cluster.config.store import ModelStore, new_version, seal
from cluster.errors import ConfigError
from cluster.optimization.intake.data import Dataset
from cluster.optimization.measure.variant import Variant, opened
from cluster.optimization.training.distil import distil
from cluster.optimization.training.lessons import Schedule
from cluster.optimization.training.thinner import thinner_encoder
from tests.cluster.optimization.training.nets import DigitNet, digit_data, digits, trained_net

NETS = Path(__file__).with_name("nets.py")


def tiny_encoder(directory: Path) -> Path:
    """A BERT of four thin layers with random weights."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).eval().save_pretrained(directory, safe_serialization=True)
    return directory


def token_data(num: int = 48, length: int = 9) -> Dataset:
    draw = np.random.default_rng(0)
    ones = np.ones((1, length), np.int64)
    items = tuple(
        {
            "input_ids": draw.integers(5, 100, (1, length)),
            "attention_mask": ones,
            "token_type_ids": 0 * ones,
        }
        for _ in range(num)
    )
    return Dataset(origin="tokens", is_real=True, items=items)


def test_a_thin_net_is_taught_by_a_trained_one_and_served_under_its_names(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    made = distil(
        trained_net(), DigitNet(width=8), tmp_path / "out", data=digit_data(),
        store=ModelStore(tmp_path), workspace=tmp_path / "w",
        schedule=Schedule(steps=150, learning_rate=5e-3), name="digits",
    )  # fmt: skip

    assert made.log.last < 0.5 * made.log.first
    assert made.verdict.accuracy is not None
    assert made.verdict.accuracy.optimised.value > 0.85
    assert made.student_bytes < 0.4 * made.teacher_bytes
    assert made.num_lessons == 450
    with opened(Variant(card=made.card, folder=made.folder)) as run:
        (scores,) = run(digit_data().items[0]).values()
    assert scores.shape == (1, 10)
    assert "taught by digits" in made.card.provenance.notes


def test_an_encoder_is_cut_to_evenly_chosen_layers_the_last_among_them(tmp_path: Path) -> None:
    directory = tiny_encoder(tmp_path / "teacher")

    encoder, inputs = thinner_encoder(directory, 2)

    from transformers import BertModel

    whole = BertModel.from_pretrained(directory).state_dict()
    cut = encoder.model.state_dict()  # type: ignore[operator, union-attr]
    key = "encoder.layer.{}.output.dense.weight"
    assert torch.equal(cut[key.format(0)], whole[key.format(1)])
    assert torch.equal(cut[key.format(1)], whole[key.format(3)])
    assert key.format(2) not in cut
    assert inputs == ("input_ids", "attention_mask", "token_type_ids")
    with pytest.raises(ConfigError, match="has 4 layers; a thinner student has 1 to 3, not 4"):
        thinner_encoder(directory, 4)


def test_an_encoder_teaches_one_of_fewer_layers(tmp_path: Path) -> None:
    directory = tiny_encoder(tmp_path / "teacher")
    (tmp_path / "out").mkdir()

    made = distil(
        directory, "layers:2", tmp_path / "out", data=token_data(), store=ModelStore(tmp_path),
        workspace=tmp_path / "w", schedule=Schedule(steps=30, learning_rate=2e-3),
    )  # fmt: skip

    assert made.log.last < made.log.first
    assert made.student_bytes < made.teacher_bytes
    item = token_data(1, length=5).items[0]
    with opened(Variant(card=made.card, folder=made.folder)) as run:
        assert run(item)["last_hidden_state"].shape == (1, 5, 32)
    assert {file.name for file in made.folder.iterdir()} == {"model.onnx", "model.yaml"}


def test_a_stored_directory_teaches_by_its_name(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    with new_version(store.root, "large", "1") as folder:
        tiny_encoder(folder)
        seal(
            folder,
            ModelCard(
                name="large", format="huggingface", artefact=".",
                signature=SignatureCard(
                    inputs=[TensorCard(name="input_ids", datatype="INT64", shape=[-1, -1])],
                    outputs=[TensorCard(name="hidden", datatype="FP32", shape=[-1, -1, 32])],
                ),
            ),
        )  # fmt: skip
    (tmp_path / "out").mkdir()

    made = distil(
        "large", "layers:1", tmp_path / "out", data=token_data(8), store=store,
        workspace=tmp_path / "w", schedule=Schedule(steps=2),
    )  # fmt: skip

    assert made.card.name == "large-student"


def test_the_command_teaches_and_stores(tmp_path: Path) -> None:
    pictures, labels = digits()
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "digits.npz", image=pictures[:200], labels=labels[:200])
    shutil.copyfile(NETS, tmp_path / "nets.py")

    done = CliRunner().invoke(
        app,
        [
            "distil", f"{tmp_path}/nets.py:DigitNet", f"{tmp_path}/nets.py:DigitNet",
            "--data", str(tmp_path / "data"), "--steps", "3", "--out", str(tmp_path / "student"),
            "--add", "thin", "--store", str(tmp_path / "store"), "--json",
        ],
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["training"]["steps"] == 3
    assert told["quality"]
    assert (tmp_path / "student" / "model.onnx").is_file()
    assert ModelStore(tmp_path / "store").verify("thin").format == "onnx"


@pytest.mark.parametrize(
    ("student", "says"),
    [
        ("layers:2", "which .* is not"),
        ("half", "student 'half'; allowed: layers:N"),
        ("missing.py:Net", "student 'missing.py:Net'; allowed"),
    ],
)
def test_students_that_cannot_be_made_say_what_can(student: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match=says):
        distil(
            trained_net() if student != "layers:2" else "nobody", student, tmp_path / "out",
            data=digit_data(), store=ModelStore(tmp_path), workspace=tmp_path / "w",
        )  # fmt: skip
