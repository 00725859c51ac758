"""What callers give becomes arrays; calls are put together and taken apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cluster.client.inputs import apart, as_array, groups, named_inputs, num_rows, together
from cluster.errors import InvalidRequest
from cluster.tensors import Array, Signature, TensorSpec

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
IDS = TensorSpec(name="ids", datatype="INT64", shape=(-1, 2))
TEXT = TensorSpec(name="text", datatype="BYTES", shape=(-1,))


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs=inputs, outputs=(X,))


def test_the_only_input_needs_no_name() -> None:
    found = named_inputs([[1, 2]], {}, signature(X))

    assert found["x"].dtype == np.float32
    assert found["x"].tolist() == [[1.0, 2.0]]


def test_several_inputs_must_be_named() -> None:
    with pytest.raises(InvalidRequest, match="name each: x, ids"):
        named_inputs([[1, 2]], {}, signature(X, IDS))


def test_a_mapping_and_keywords_together_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="not both"):
        named_inputs({"x": [[1, 2]]}, {"x": [[1, 2]]}, signature(X))


def test_a_text_alone_is_one_row_and_bytes_keep_their_zeros() -> None:
    assert as_array("ä", TEXT).tolist() == ["ä".encode()]
    assert as_array([b"a\x00", "b"], TEXT).tolist() == [b"a\x00", b"b"]


def test_torch_tensors_are_taken_with_their_datatype() -> None:
    assert as_array(torch.ones(1, 2, dtype=torch.int64), IDS).dtype == np.int64
    assert as_array(torch.ones(2, dtype=torch.bfloat16), None).astype(float).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("value", "spec", "said"),
    [
        ([[1, 2], [3]], X, "different lengths"),
        ([[1.5, 2.0]], IDS, "fractions"),
        ([[2**70, 1]], IDS, "INT64"),
        ([[object()]], X, "FP32"),
        ([object()], TEXT, "no text and no number"),
    ],
)
def test_what_is_no_such_array_is_refused_by_name(
    value: object, spec: TensorSpec, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as raised:
        as_array(value, spec)

    assert repr(spec.name) in raised.value.message


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 8))
def test_what_was_put_together_comes_apart_in_order(sizes: list[int], max_rows: int) -> None:
    calls: list[dict[str, Array]] = [
        {"x": np.full((rows, 2), index, np.float32)} for index, rows in enumerate(sizes)
    ]

    found: dict[int, Array] = {}
    for group in groups(calls, max_rows, is_batched=True):
        chosen = [calls[index] for index in group]
        whole = together(chosen)
        assert len(group) == 1 or num_rows(whole, is_batched=True) <= max_rows
        for index, part in zip(group, apart(whole, [sizes[i] for i in group]), strict=True):
            found[index] = part["x"]

    for index, call in enumerate(calls):
        assert np.array_equal(found[index], call["x"])


def test_other_shapes_and_models_without_a_batch_go_alone() -> None:
    calls: list[dict[str, Array]] = [
        {"x": np.zeros((1, 2), np.float32)},
        {"x": np.zeros((1, 3), np.float32)},
        {"x": np.zeros((1, 2), np.float32)},
    ]

    assert groups(calls, 8, is_batched=True) == [[0, 2], [1]]
    assert groups(calls, 8, is_batched=False) == [[0], [1], [2]]
