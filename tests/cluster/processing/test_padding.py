from __future__ import annotations

import numpy as np
import pytest

from cluster.errors import ConfigError, InvalidRequest
from cluster.processing.padding import Padding
from cluster.tensors import Signature, TensorSpec


def spec(name: str, *shape: int, datatype: str = "INT64") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)  # type: ignore[arg-type]


IDS, MASK = spec("ids", -1, -1), spec("mask", -1, -1)
STATES = spec("states", -1, -1, 3, datatype="FP32")
MODEL = Signature(inputs=(IDS, MASK), outputs=(STATES, spec("label", -1, 1)))


def made(**values: float) -> Padding:
    return Padding(values, MODEL)


def test_rows_are_filled_up_to_the_longest_of_the_batch() -> None:
    arrays = [np.array([[1, 2]]), np.array([[3, 4, 5], [6, 7, 8]])]

    merged = made(ids=9, mask=0).merge("ids", arrays)

    assert merged.tolist() == [[1, 2, 9], [3, 4, 5], [6, 7, 8]]


def test_an_axis_further_back_is_filled_too() -> None:
    padding = Padding({"sound": -1}, Signature(inputs=(spec("sound", -1, 2, -1),), outputs=()))

    merged = padding.merge("sound", [np.zeros((1, 2, 1), int), np.ones((1, 2, 2), int)])

    assert merged.tolist() == [[[0, -1], [0, -1]], [[1, 1], [1, 1]]]


def test_an_output_is_cut_back_to_its_request_and_what_has_no_length_is_left() -> None:
    padding = made(ids=0, mask=0)
    states, label = np.zeros((1, 5, 3)), np.zeros((1, 1))

    assert padding.cut("states", states, length=2, longest=5).shape == (1, 2, 3)
    assert padding.cut("states", np.zeros((1, 7, 3)), length=2, longest=5).shape == (1, 7, 3)
    assert padding.cut("label", label, length=2, longest=5) is label


def test_inputs_of_one_request_must_be_equally_long() -> None:
    inputs = {"ids": np.zeros((1, 3)), "mask": np.zeros((1, 4))}

    with pytest.raises(InvalidRequest, match="equally long: ids 3, mask 4"):
        made(ids=0, mask=0).length(inputs)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"idz": 0}, "no input 'idz'; allowed: ids, mask"),
        ({"ids": 0}, "mask .* has a free axis too"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Padding(values, MODEL)


def test_a_fixed_input_cannot_be_padded() -> None:
    with pytest.raises(ConfigError, match="one free axis"):
        Padding({"x": 0}, Signature(inputs=(spec("x", -1, 4),), outputs=()))
