from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.errors import InvalidRequest
from cluster.protocols.v2_classification import classes_of
from cluster.tensors import tensor


@pytest.mark.parametrize(
    ("values", "count", "expected"),
    [
        (np.array([[0.25, 0.5], [2, 1]], np.float32), 1, [[b"0.500000:1"], [b"2.000000:0"]]),
        (np.array([1, 3, 2], np.uint8), 2, [b"3:1", b"2:2"]),
        (np.array([-1, -3], np.int64), 9, [b"-1:0", b"-3:1"]),
        (np.array([5, 7, 7], np.int32), 3, [b"7:1", b"7:2", b"5:0"]),
        (np.array([np.nan, 1.0, np.inf], np.float16), 2, [b"inf:2", b"1.000000:1"]),
        (np.zeros((1, 2, 2), np.float32), 1, [[b"0.000000:0"]]),
        (np.zeros((2, 0), np.float32), 1, [[], []]),
        (np.zeros((0, 2), np.float32), 1, []),
    ],
)
def test_the_best_classes_come_first(values: Any, count: int, expected: Any) -> None:
    got = classes_of(tensor("y", values), count)

    assert (got.name, got.datatype, got.array.tolist()) == ("y", "BYTES", expected)


def test_a_label_is_added_where_there_is_one() -> None:
    got = classes_of(tensor("y", np.array([1, 2, 3])), 3, ["ant", "bee"])

    assert got.array.tolist() == [b"3:2", b"2:1:bee", b"1:0:ant"]


@pytest.mark.parametrize("values", [np.array(["a"], object), np.array([True]), np.array(1.0)])
def test_an_output_without_numbers_to_rank_is_refused(values: Any) -> None:
    with pytest.raises(InvalidRequest, match="output 'y' is"):
        classes_of(tensor("y", values), 1)
