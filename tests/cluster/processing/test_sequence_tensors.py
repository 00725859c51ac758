"""What the engine is given for a batch of sequences, and what of its answer goes where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.config.sequences import SequencesConfig
from cluster.errors import ConfigError, InvalidRequest
from cluster.processing.sequence_tensors import SequenceRow, SequenceTensors
from cluster.requests import SequenceStep
from cluster.tensors import Array, Datatype, Signature, TensorSpec


def spec(name: str, datatype: Datatype = "INT32") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1, 1))


def tensors(config: dict[str, Any], *inputs: TensorSpec, outputs: str = "Y") -> SequenceTensors:
    raw = Signature(
        inputs=(spec("X"), *inputs), outputs=tuple(spec(name) for name in outputs.split())
    )
    return SequenceTensors(SequencesConfig.model_validate(config), raw, is_batched=True)


def row(value: int, **step: Any) -> SequenceRow:
    return SequenceRow(inputs={"X": column(value)}, step=SequenceStep(**{"id": 1, **step}))


def column(*values: int) -> Array:
    return np.array(values, np.int32).reshape(-1, 1)


FLAGS = {
    "START": {"kind": "start"},
    "END": {"kind": "end", "datatype": "BOOL", "false_value": False, "true_value": True},
    "READY": {"kind": "ready", "datatype": "FP32", "false_value": -1.0, "true_value": 2.5},
}
FLAG_SPECS = (spec("START"), spec("END", "BOOL"), spec("READY", "FP32"))


def test_flags_take_their_own_values_and_a_missing_row_is_not_ready() -> None:
    merged = tensors({"controls": FLAGS}, *FLAG_SPECS).merge(
        [row(5, is_start=True), None, row(6, is_end=True)]
    )

    assert {name: array[:, 0].tolist() for name, array in merged.items()} == {
        "X": [5, 0, 6],
        "START": [1, 0, 0],
        "END": [False, False, True],
        "READY": [2.5, -1.0, 2.5],
    }
    assert merged["READY"].dtype == np.float32


def test_clients_see_neither_controls_nor_state() -> None:
    state = [{"input": "S", "output": "T", "datatype": "INT32", "shape": [1]}]
    made = tensors({"controls": FLAGS, "state": state}, *FLAG_SPECS, spec("S"), outputs="Y T")

    assert [s.name for s in made.signature.inputs] == ["X"]
    assert [s.name for s in made.signature.outputs] == ["Y"]


def test_a_narrow_id_tensor_takes_the_lower_bits() -> None:
    controls = {"ID": {"kind": "corrid", "datatype": "UINT32"}}
    merged = tensors({"controls": controls}, spec("ID", "UINT32")).merge([row(1, id=2**32 + 9)])

    assert merged["ID"].tolist() == [[9]]


def test_an_id_that_the_tensor_cannot_hold_is_refused() -> None:
    controls = {"ID": {"kind": "corrid", "datatype": "UINT64"}}
    made = tensors({"controls": controls}, spec("ID", "UINT64"))

    made.check_id(SequenceStep(id=2**64 - 1))
    with pytest.raises(InvalidRequest, match="sequence_id must be an integer"):
        made.check_id(SequenceStep(id="abc"))


def test_string_ids_go_into_bytes_tensors() -> None:
    controls = {"ID": {"kind": "corrid", "datatype": "BYTES"}}
    merged = tensors({"controls": controls}, spec("ID", "BYTES")).merge([row(1, id="äb"), None])

    assert merged["ID"].tolist() == [["äb".encode()], [b""]]


def test_state_begins_with_its_initial_value_and_is_carried_by_row() -> None:
    state = [{"input": "S", "output": "T", "datatype": "INT32", "shape": [1], "initial": 40}]
    made = tensors({"state": state}, spec("S"), outputs="Y T")
    outputs = {"Y": column(1, 2), "T": column(7, 8)}

    kept = made.new_state(outputs, 1)
    again = SequenceRow(inputs={"X": column(0)}, step=SequenceStep(id=1), state=kept)
    anew = SequenceRow(inputs={"X": column(0)}, step=SequenceStep(id=1, is_start=True), state=kept)

    assert made.merge([row(0, is_start=True), again, anew])["S"].tolist() == [[40], [8], [40]]
    assert made.public_outputs(outputs, 0)["Y"].tolist() == [[1]]
    assert list(made.public_outputs(outputs, 0)) == ["Y"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"controls": {"Z": {"kind": "start"}}}, "names the tensor 'Z'; the artefact has X, S"),
        (
            {"controls": {"S": {"kind": "start", "datatype": "FP32"}}},
            "'S' is FP32; the artefact says INT32",
        ),
        (
            {"state": [{"input": "S", "output": "Y", "datatype": "INT32", "shape": [3]}]},
            r"'S' has shape \[3\]; one row of the artefact's has \[1\]",
        ),
    ],
)
def test_what_does_not_fit_the_artefact_is_refused_at_start(
    config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        tensors(config, spec("S"))
