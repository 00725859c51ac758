from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.engines.engine import EngineSetup
from cluster.engines.torch import TorchEngine
from cluster.errors import ConfigError, EngineFailed, InvalidRequest
from cluster.tensors import NUMPY_DTYPES, Datatype
from tests.contracts.tiny_models import TINY, Doubled, card

ONES = np.ones((2, 4), np.float32)


def scripted(
    module: torch.nn.Module, folder: Path, inputs: str = "x", outputs: str = "y", kind: str = "FP32"
) -> TorchEngine:
    """Names are single letters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), str(folder / "model.pt"))

    def tensors(names: str) -> list[dict[str, object]]:
        return [{"name": name, "datatype": kind, "shape": [-1, 4]} for name in names]

    made = card(
        format="torchscript",
        artefact="model.pt",
        signature={"inputs": tensors(inputs), "outputs": tensors(outputs)},
    )
    engine = TorchEngine(EngineSetup(card=made, folder=folder))
    engine.load()
    return engine


class InPlace(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)


class Pair(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a - b, a + b


class Named(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"more": x, "y": x * 3}


class Failing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 100):
            raise ValueError("too much")
        return x.reshape(-1, 4)


class OneRow(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:1]


def test_a_program_that_works_in_place_leaves_the_callers_array_alone(tmp_path: Path) -> None:
    engine = scripted(InPlace(), tmp_path)
    given = ONES.copy()

    assert engine.infer({"x": given})["y"].tolist() == (2 * ONES).tolist()
    assert given.tolist() == ONES.tolist()


def test_inputs_and_outputs_are_taken_in_the_cards_order(tmp_path: Path) -> None:
    engine = scripted(Pair(), tmp_path, inputs="ab", outputs="ds")
    found = engine.infer({"b": ONES, "a": 3 * ONES})

    assert {name: array[0, 0] for name, array in found.items()} == {"d": 2, "s": 4}


def test_outputs_of_a_dict_are_taken_by_name(tmp_path: Path) -> None:
    found = scripted(Named(), tmp_path).infer({"x": ONES})

    assert {name: array[0, 0] for name, array in found.items()} == {"y": 3}


@pytest.mark.parametrize("kind", ["FP16", "BF16", "FP64", "INT32", "UINT8"])
def test_numbers_of_every_width_go_in_and_come_out(kind: Datatype, tmp_path: Path) -> None:
    engine = scripted(InPlace(), tmp_path, kind=kind)
    found = engine.infer({"x": ONES.astype(NUMPY_DTYPES[kind])})["y"]

    assert found.dtype == NUMPY_DTYPES[kind]
    assert found.astype(float).tolist() == (2 * ONES).tolist()


def test_a_failure_is_told_in_one_line_and_the_next_batch_is_answered(tmp_path: Path) -> None:
    engine = scripted(Failing(), tmp_path)

    with pytest.raises(EngineFailed, match="too much") as caught:
        engine.infer({"x": 1000 * ONES})

    assert "\n" not in caught.value.message
    assert "Traceback" not in caught.value.message
    assert engine.infer({"x": ONES})["y"].tolist() == ONES.tolist()


@pytest.mark.parametrize(
    ("module", "outputs", "says"),
    [
        (OneRow(), "y", "output 'y': 1 rows for 2 rows of input"),
        (Named(), "z", "no output 'z'"),
        (OneRow(), "yz", "gave 1 outputs, the card has 2"),
    ],
)
def test_outputs_that_the_card_does_not_promise_are_refused(
    module: torch.nn.Module, outputs: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineFailed, match=says):
        scripted(module, tmp_path, outputs=outputs).infer({"x": ONES})


def test_a_program_of_other_inputs_than_the_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"takes 2 inputs \(a, b\), the card has 1"):
        scripted(Pair(), tmp_path)


def test_a_hugging_face_folder_without_its_config_is_refused(tmp_path: Path) -> None:
    setup = EngineSetup(card=card(format="huggingface", artefact="."), folder=tmp_path)
    with pytest.raises(ConfigError, match=r"config\.json: missing"):
        TorchEngine(setup).load()


def test_text_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tensors of text"):
        scripted(InPlace(), tmp_path, kind="BYTES")


def exported(module: torch.nn.Module, args: tuple[torch.Tensor, ...], folder: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, args, dynamic_shapes=tuple({0: batch} for _ in args))
    torch.export.save(program, folder / "model.pt2")


def export_engine(folder: Path, inputs: list[object], **changes: object) -> TorchEngine:
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]
    made = card(
        format="torch_export",
        artefact="model.pt2",
        signature={"inputs": inputs, "outputs": outputs},
        **changes,
    )
    return TorchEngine(EngineSetup(card=made, folder=folder))


def tensor_card(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 4)) -> object:
    return {"name": name, "datatype": datatype, "shape": shape}


def test_an_exported_program_takes_its_inputs_by_its_own_names(tmp_path: Path) -> None:
    exported(Pair(), (torch.zeros(2, 4), torch.zeros(2, 4)), tmp_path)
    engine = export_engine(tmp_path, [tensor_card("b"), tensor_card("a")])
    engine.load()

    assert engine.infer({"a": 3 * ONES, "b": ONES})["y"].tolist() == (2 * ONES).tolist()


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (tensor_card("image"), "input 'x': the artefact takes it"),
        (tensor_card("x", "FP16"), "input 'x': FP16 in the card, FP32 in the artefact"),
        (tensor_card("x", shape=(-1, 5)), "input 'x': shape"),
        (tensor_card("x", shape=(-1, -1)), "dimension 1 is any size"),
    ],
)
def test_an_exported_program_is_compared_with_its_card(
    said: object, says: str, tmp_path: Path
) -> None:
    exported(Doubled(), (torch.zeros(2, 4),), tmp_path)

    with pytest.raises(ConfigError, match=says):
        export_engine(tmp_path, [said]).load()


def test_a_program_exported_for_keywords_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(Doubled(), (), {"x": torch.zeros(2, 4)})
    torch.export.save(program, tmp_path / "model.pt2")

    with pytest.raises(ConfigError, match="keyword arguments"):
        export_engine(tmp_path, [tensor_card("x", shape=(2, 4))], batched=False).load()


class Lookup(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding.from_pretrained(torch.eye(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table(x)


def test_an_index_beyond_the_table_is_the_callers_mistake(tmp_path: Path) -> None:
    exported(Lookup(), (torch.zeros(2, dtype=torch.int64),), tmp_path)
    engine = export_engine(tmp_path, [tensor_card("x", "INT64", (-1,))])
    engine.load()

    with pytest.raises(InvalidRequest, match="index out of range"):
        engine.infer({"x": np.array([9])})
    assert engine.infer({"x": np.array([1])})["y"].tolist() == [[0, 1, 0, 0]]


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self._file, "opened"))


@pytest.mark.parametrize("kind", ["sample inputs", "weights", "constants"])
def test_an_archive_that_would_run_code_when_opened_is_refused(kind: str, tmp_path: Path) -> None:
    setup = TINY["torch_export"][1](tmp_path)
    trace = tmp_path / "opened.txt"
    stream = io.BytesIO()
    torch.save(Bomb(trace), stream)
    payload = {"path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None}
    opaque = payload | {"path_name": "opaque_obj_0", "use_pickle": False}
    changes = {
        "sample inputs": {"sample_inputs/model.pt": stream.getvalue()},
        "weights": {
            "weights/weight_0": stream.getvalue(),
            "weights/model_weights_config.json": json.dumps({"config": {"two": payload}}),
        },
        "constants": {
            "constants/opaque_obj_0": pickle.dumps(Bomb(trace)),
            "constants/model_constants_config.json": json.dumps({"config": {"c": opaque}}),
        },
    }[kind]
    _rewrite(tmp_path / "model.pt2", changes)

    with pytest.raises(ConfigError, match="holds pickled objects"):
        TorchEngine(setup).load()
    assert not trace.exists()


def _rewrite(file: Path, changes: dict[str, bytes | str]) -> None:
    """Puts these members in the place of those whose names end alike."""
    with zipfile.ZipFile(file) as archive:
        members: dict[str, bytes | str] = {n: archive.read(n) for n in archive.namelist()}
    root = next(iter(members)).split("/", 1)[0]
    for name, content in changes.items():
        members[f"{root}/data/{name}"] = content
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_two_engines_of_one_process_compute_with_a_number_of_threads_each(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    found: list[int] = []
    made = TINY["torchscript"][1](tmp_path)
    one, three = (TorchEngine(replace(made, threads=number)) for number in (1, 3))
    try:
        for each in (one, three):
            each.load()
        for each in (one, three, one):
            each.infer({"x": ONES})
            found.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)

    assert found == [1, 3, 1]
