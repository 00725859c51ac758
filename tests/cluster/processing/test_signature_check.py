from __future__ import annotations

import numpy as np
import pytest

from cluster.errors import EngineFailed, InvalidRequest
from cluster.processing.signature_check import check_inputs, check_outputs
from cluster.tensors import Array, Signature, TensorSpec

A = TensorSpec(name="a", datatype="FP32", shape=(-1, 2))
B = TensorSpec(name="b", datatype="INT64", shape=(-1, -1))
BOTH = Signature(inputs=(A, B), outputs=())


def inputs(rows_a: int = 2, rows_b: int = 2) -> dict[str, Array]:
    return {"a": np.zeros((rows_a, 2), np.float32), "b": np.zeros((rows_b, 7), np.int64)}


def test_rows_are_counted() -> None:
    assert check_inputs(inputs(), BOTH, is_batched=True) == 2
    assert check_inputs(inputs(), BOTH, is_batched=False) == 1


def test_inputs_that_disagree_on_the_rows_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="number of rows: a 2, b 3"):
        check_inputs(inputs(rows_b=3), BOTH, is_batched=True)


def test_the_first_dimension_of_an_unbatched_model_is_like_any_other() -> None:
    fixed = Signature(inputs=(TensorSpec(name="a", datatype="FP32", shape=(1, 2)),), outputs=())

    assert check_inputs({"a": np.zeros((1, 2), np.float32)}, fixed, is_batched=False) == 1
    with pytest.raises(InvalidRequest, match=r"expected shape \[1, 2\], got \[3, 2\]"):
        check_inputs({"a": np.zeros((3, 2), np.float32)}, fixed, is_batched=False)


def test_a_refusal_tells_what_the_model_takes() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_inputs({"a": inputs()["a"]}, BOTH, is_batched=True)

    assert caught.value.message == (
        "input 'b' is missing; the model takes 'a' (FP32 [-1, 2]), 'b' (INT64 [-1, -1])"
    )


def test_outputs_are_the_engines_duty() -> None:
    check_outputs(inputs(), [A, B], rows=2, is_batched=True)
    with pytest.raises(EngineFailed, match="output 'a': 2 rows for 3 rows of input"):
        check_outputs(inputs(), [A], rows=3, is_batched=True)
