from __future__ import annotations

import numpy as np
import pytest

from cluster.errors import InvalidRequest
from cluster.protocols.v2_check import check_request
from cluster.requests import InferenceRequest, RequestedOutput
from cluster.tensors import Signature, Tensor, TensorSpec, tensor

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="a", datatype="INT32", shape=(-1, 16)),
        TensorSpec(name="b", datatype="FP32", shape=(-1, -1)),
    ),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 16)),),
    extra_outputs=(TensorSpec(name="z", datatype="FP32", shape=(-1, 2)),),
)


def a(*shape: int) -> Tensor:
    return tensor("a", np.zeros(shape, np.int32))


def b(*shape: int) -> Tensor:
    return tensor("b", np.zeros(shape, np.float32))


def check(*inputs: Tensor, outputs: tuple[str, ...] = (), is_batched: bool = True) -> int:
    request = InferenceRequest(
        model="m", inputs=inputs, outputs=tuple(RequestedOutput(name=name) for name in outputs)
    )
    return check_request(request, SIGNATURE, max_batch_size=8, is_batched=is_batched)


def test_the_rows_of_a_batched_request_are_counted() -> None:
    assert check(b(8, 5), a(8, 16), outputs=("y", "z")) == 8


def test_a_model_that_is_not_batched_has_one_row_and_no_batch_rules() -> None:
    assert check(a(9, 16), b(3, 1), is_batched=False) == 1


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            (a(1, 16), tensor("c", np.zeros(1))),
            "unexpected inference input 'c' for model 'm'. Expected input(s) ['a', 'b']",
        ),
        (
            (a(1, 16),),
            "expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['a'], but missing "
            "required input(s) ['b']. Please provide all required input(s).",
        ),
        (
            (tensor("a", np.zeros((1, 16), np.float32)), b(1, 1)),
            "inference input 'a' data-type is 'FP32', but model 'm' expects 'INT32'",
        ),
        (
            (a(1, 17), b(1, 1)),
            "unexpected shape for input 'a' for model 'm'. Expected [-1,16], got [1,17]",
        ),
        (
            (a(16), b(1, 1)),
            "unexpected shape for input 'a' for model 'm'. Expected [-1,16], got [16]",
        ),
        (
            (a(2, 16), b(3, 1)),
            "batch sizes of the inputs for model 'm' differ: 'a' has 2, 'b' has 3",
        ),
        (
            (a(0, 16), b(0, 1)),
            "inference request for model 'm' has an empty batch: batch-size must be from 1 to 8, "
            "got 0 in input 'a'",
        ),
        (
            (a(9, 16), b(9, 1)),
            "inference request batch-size must be <= 8 for 'm', got 9 in input 'a'",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_names_and_both_values(
    inputs: tuple[Tensor, ...], text: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(*inputs)

    assert caught.value.message == text


def test_an_unknown_output_is_told_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(a(1, 16), b(1, 1), outputs=("q",))

    assert caught.value.message == (
        "unexpected inference output 'q' for model 'm'. Known output(s) ['y', 'z']"
    )
