"""May one model stand in for another: on rows, arrays and folders, with and without labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from cluster.client import Client, Model, validate_accuracy
from cluster.errors import ConfigError
from tests.cluster.client.places import Place

ROWS = np.random.default_rng(2).normal(size=(30, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def client(place: Place) -> Iterator[Client]:
    with place.client() as made:
        yield made


@pytest.fixture(scope="module")
def model(client: Client) -> Model:
    return client.load_model("mlp")


@pytest.fixture(scope="module")
def other(client: Client) -> Model:
    """Other weights behind the same names."""
    import torch

    torch.manual_seed(9)
    body = nn.Sequential(nn.Linear(64, 10)).eval()
    return client.load_model(body, example={"x": ROWS[:1]}, name="other")


def labels_of(model: Model) -> list[int]:
    (scores,) = model.predict(ROWS).values()
    found: list[int] = scores.argmax(1).tolist()
    return found


def test_a_model_may_stand_in_for_itself(model: Model) -> None:
    found = validate_accuracy(model, model, {"x": ROWS, "labels": labels_of(model)})

    assert found.passed
    assert found.is_validated
    assert found.accuracy is not None
    assert found.accuracy.optimised.value == 1.0
    assert found.agreement.num_items == 30


def test_another_model_fails_the_gate_and_is_told_by_how_much(model: Model, other: Model) -> None:
    (name,) = model.predict(ROWS)
    assert name in other.predict(ROWS)

    found = validate_accuracy(model, other, list(ROWS[:, None]), labels=labels_of(model))

    assert not found.passed
    assert found.accuracy is not None
    assert found.accuracy.change_points.value < -50
    assert "accuracy fell by" in found.reasons[0]


def test_without_data_nothing_is_validated(model: Model) -> None:
    found = validate_accuracy(model, model)

    assert found.passed
    assert not found.is_validated


def test_a_folder_of_arrays_is_read(model: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=ROWS, labels=labels_of(model))

    found = validate_accuracy(model, model, tmp_path, max_items=20)

    assert found.agreement.num_items == 20
    assert found.accuracy is not None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "no item"),
        ({"y": ROWS}, "no array 'x'"),
        (list(ROWS[None]), "one row"),
        ("/nowhere", "no such folder"),
    ],
)
def test_data_that_do_not_fit_are_told(model: Model, data: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate_accuracy(model, model, data)


def test_a_folder_with_nothing_for_the_model_is_told(model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text\n")

    with pytest.raises(ConfigError, match="nothing that the model takes"):
        validate_accuracy(model, model, tmp_path)


def test_labels_must_be_one_an_item(model: Model) -> None:
    with pytest.raises(ConfigError, match="give one each"):
        validate_accuracy(model, model, list(ROWS[:4, None]), labels=[1])


def test_models_of_other_outputs_cannot_be_compared(client: Client, model: Model) -> None:
    with pytest.raises(ConfigError, match="cannot stand in"):
        validate_accuracy(model, client.load_model("echo"), list(ROWS[:2, None]))
