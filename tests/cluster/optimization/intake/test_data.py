"""Data folders and random inputs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from cluster.config.model_card import ModelCard
from cluster.errors import ConfigError
from cluster.optimization.intake.data import Dataset, fitted, load_dataset, random_dataset
from cluster.optimization.intake.random_inputs import index_bounds, random_items
from cluster.optimization.signature import onnx_signature


def card(*inputs: tuple[str, str, list[int]], batched: bool = True) -> ModelCard:
    return ModelCard.model_validate(
        {
            "name": "m",
            "format": "onnx",
            "batched": batched,
            "signature": {
                "inputs": [
                    {"name": name, "datatype": datatype, "shape": shape}
                    for name, datatype, shape in inputs or (("x", "FP32", [-1, 4]),)
                ],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
            },
        }
    )


def test_arrays_become_items_of_one_row_with_their_labels(tmp_path: Path) -> None:
    x = np.arange(40, dtype=np.float32).reshape(10, 4)
    np.savez(tmp_path / "a.npz", x=x, labels=np.arange(10))

    found = load_dataset(tmp_path, card(), tmp_path)

    assert found.is_real
    assert found.labels == tuple(range(10))
    np.testing.assert_array_equal(np.concatenate([item["x"] for item in found.items]), x)


@pytest.mark.parametrize(
    "labels", [np.array(["cat", "dog"]), np.eye(2), np.array([0.5, 1.0])], ids=str
)
def test_labels_that_are_no_classes_say_what_is_wanted(
    tmp_path: Path, labels: np.typing.NDArray[np.generic]
) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4), np.float32), labels=labels)

    with pytest.raises(ConfigError, match="give the number of one class for each item"):
        load_dataset(tmp_path, card(), tmp_path)


def test_items_that_were_given_hold_what_the_model_takes_and_nothing_else() -> None:
    row = np.zeros((1, 4), np.float32)
    items = ({"x": row, "mask": row},)
    data = Dataset(origin="here", is_real=True, items=items, labels=(1,))

    found = fitted(data, card())

    assert [set(item) for item in found.items] == [{"x"}]
    assert found.labels == (1,)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"y": np.zeros((1, 4), np.float32)}, "nothing for the model's input 'x'; there: y"),
        ({"x": np.zeros((1, 5), np.float32)}, r"item 0: input 'x': expected shape \[-1, 4\]"),
        ({"x": np.zeros((1, 4))}, "expected datatype FP32, got FP64"),
    ],
)
def test_items_that_do_not_fit_are_named(
    item: dict[str, np.typing.NDArray[np.generic]], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        fitted(Dataset(origin="here", is_real=True, items=(item,)), card())


def test_what_calibrates_is_judged_on_by_nobody(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(40, dtype=np.float32).reshape(10, 4))

    calibration, evaluation = load_dataset(tmp_path, card(), tmp_path).split()

    used = {item["x"].tobytes() for item in calibration.items}
    judged = {item["x"].tobytes() for item in evaluation.items}
    assert len(used) == 3
    assert len(judged) == 7
    assert not used & judged


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros((3, 5), np.float32)}, r"input 'x': expected shape \[-1, 4\], got \[1, 5\]"),
        ({"x": np.zeros((3, 4), np.float64)}, "expected datatype FP32, got FP64"),
        ({"z": np.zeros((3, 4), np.float32)}, "no array 'x'.*there: z"),
        ({"x": np.zeros((3, 4), np.float32), "labels": np.zeros(2)}, "'labels' holds 2 items"),
        ({"x": np.float32(1)}, "is one number"),
    ],
)
def test_data_of_the_wrong_shape_names_the_file_and_what_is_expected(
    tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)

    with pytest.raises(ConfigError, match=says) as caught:
        load_dataset(tmp_path, card(), tmp_path)

    assert "bad.npz" in caught.value.message


def test_arrays_that_hold_a_pickle_are_never_loaded(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "owned"),))

    np.savez(tmp_path / "bad.npz", x=np.array([Payload()], dtype=object))

    with pytest.raises(ConfigError, match="cannot be read as arrays"):
        load_dataset(tmp_path, card(), tmp_path)

    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)

    with pytest.raises(ConfigError, match=r"bad\.npz"):
        load_dataset(tmp_path, card(), tmp_path)


def test_a_folder_without_data_says_what_data_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no data in it.*npz"):
        load_dataset(tmp_path, card(), tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        load_dataset(tmp_path / "absent", card(), tmp_path)


def test_pictures_for_a_model_that_says_not_how_it_wants_them_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")

    with pytest.raises(ConfigError, match="nothing says how this model wants them prepared"):
        load_dataset(tmp_path, card(), tmp_path)


def test_random_inputs_fill_free_sizes_and_say_that_they_are_random() -> None:
    wanted = card(("image", "FP32", [-1, 3, -1, -1]), ("attention_mask", "INT64", [-1, -1]))

    found = random_dataset(wanted, None, num=2)

    assert not found.is_real
    assert "random" in found.origin
    assert found.items[0]["image"].shape == (1, 3, 224, 224)
    assert (found.items[0]["attention_mask"] == 1).all()


def test_a_shape_of_the_callers_own_is_taken_and_one_that_does_not_fit_refused() -> None:
    wanted = card(("image", "FP32", [-1, 3, -1, -1]))

    (item,) = random_items(wanted, 1, shapes={"image": (1, 3, 32, 48)})

    assert item["image"].shape == (1, 3, 32, 48)
    for shape in ((1, 4, 32, 32), (1, 3, 32), (1, 3, 0, 32)):
        with pytest.raises(ConfigError, match="does not fit"):
            random_items(wanted, 1, shapes={"image": shape})
    with pytest.raises(ConfigError, match="shape for an input 'z'"):
        random_items(wanted, 1, shapes={"z": (1,)})


def test_random_token_ids_stay_inside_the_vocabulary(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from cluster.optimization.export.module import export_module

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(37, 4)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.table(ids)
            return found

    found = export_module(Lookup(), {"ids": np.zeros((1, 8), np.int64)}, tmp_path, name="lookup")
    bounds = index_bounds(tmp_path / "model.onnx")
    items = random_items(found, 20, graph=tmp_path / "model.onnx")

    assert bounds == {"ids": 37}
    assert 2 < max(int(item["ids"].max()) for item in items) < 37


@pytest.mark.parametrize(
    ("shapes", "tokens"),
    [({}, 128), ({"mask": (1, 9)}, 9), ({"ids": (1, 7)}, 7)],
)
def test_sizes_that_the_graph_calls_by_one_name_are_one(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], tokens: int
) -> None:
    # The mask comes first, and as numbers that are no ids: alone it would be taken for features.
    kinds = {"mask": onnx.TensorProto.FLOAT, "ids": onnx.TensorProto.INT64}
    infos = [
        onnx.helper.make_tensor_value_info(name, kind, ["batch", "tokens"])
        for name, kind in kinds.items()
    ]
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", "tokens"])
    nodes = [
        onnx.helper.make_node("Cast", ["ids"], ["x"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", ["x", "mask"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "masked", infos, [out])
    opset = [onnx.helper.make_opsetid("", 17)]
    file = tmp_path / "masked.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), str(file))
    signature = onnx_signature(file)
    card = ModelCard(name="m", format="onnx", artefact="masked.onnx", signature=signature)

    (row,) = random_items(card, 1, shapes=shapes, graph=file)

    assert {name: array.shape for name, array in row.items()} == dict.fromkeys(
        ("mask", "ids"), (1, tokens)
    )
