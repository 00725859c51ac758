from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from cluster.errors import InvalidRequest
from cluster.protocols.v2_numbers import array_from_json, json_from_tensor
from cluster.tensors import NUMPY_DTYPES, Datatype, tensor


def read(data: Any, datatype: Datatype = "INT32", shape: tuple[int, ...] = (2,)) -> Any:
    return array_from_json(data, datatype, shape, "input 'x'").tolist()


@pytest.mark.parametrize(
    ("data", "shape", "expected"),
    [
        ([1, 2, 3, 4], (2, 2), [[1, 2], [3, 4]]),
        ([[1, 2], [3, 4]], (2, 2), [[1, 2], [3, 4]]),
        ([[[5]]], (1, 1, 1), [[[5]]]),
        ([7], (), 7),
        ([], (0,), []),
        ([], (0, 3), []),
        ([[], []], (2, 0), [[], []]),
        ([[], []], (2, 0, 5), [[], []]),
    ],
)
def test_nested_and_flat_data_give_the_same_array(data: Any, shape: Any, expected: Any) -> None:
    assert read(data, shape=shape) == expected


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "facts"),
    [
        ({}, "INT32", (2,), ["must be an array, got an object"]),
        ([1], "INT32", (2,), ["1 elements", "needs 2"]),
        ([1, 2, 3], "INT32", (2,), ["3 elements", "needs 2"]),
        ([[1, 2], [3]], "INT32", (2, 2), ["ragged", "1, 2", "expected 2"]),
        ([[1, 2], 3], "INT32", (2, 2), ["ragged"]),
        ([1, [2]], "INT32", (2,), ["element 1", "an array", "nested more deeply"]),
        ([[1, 2]], "INT32", (2, 1), ["dimension 0 has 1", "expected 2"]),
        ([[1, 2, 3], [4, 5, 6]], "INT32", (2, 2), ["dimension 1 has 3", "expected 2"]),
        ([[1], [2]], "INT32", (2, 1, 1), ["less deeply"]),
        ([1, True], "INT32", (2,), ["element 1", "boolean True"]),
        ([1, "2"], "INT32", (2,), ["element 1", "string '2'"]),
        ([1, 2.0], "INT32", (2,), ["element 1", "number 2.0"]),
        ([1, None], "INT32", (2,), ["element 1", "null"]),
        ([1, 2**31], "INT32", (2,), ["element 1", "2147483648", "2147483647"]),
        ([-1, 1], "UINT64", (2,), ["element 0", "-1"]),
        ([1, -129], "INT8", (2,), ["element 1", "-129"]),
        ([1, 2**64 - 1], "INT64", (2,), ["element 1", "out of range for INT64"]),
        ([True, 1], "BOOL", (2,), ["element 1", "true or false"]),
        ([1.0, True], "FP32", (2,), ["element 1", "boolean"]),
        ([1.0, "1"], "FP32", (2,), ["element 1", "string '1'"]),
        ([1.0, "nan"], "FP32", (2,), ["element 1", "string 'nan'"]),
        ([1.0, None], "FP32", (2,), ["element 1", "null"]),
        ([1.0, 1e39], "FP32", (2,), ["element 1", "1e+39", "out of range for FP32"]),
        (["Infinity", -1e39], "FP32", (2,), ["element 1", "out of range for FP32"]),
        ([1.0, 70000], "FP16", (2,), ["element 1", "70000", "65504"]),
        ([1.0, 3.4e38], "BF16", (2,), ["element 1", "3.4e+38", "out of range for BF16"]),
        ([1.0, 1e39], "BF16", (2,), ["element 1", "1e+39", "out of range for BF16"]),
        (["a", 1], "BYTES", (2,), ["element 1", "a string", "integer 1"]),
    ],
)
def test_wrong_data_is_refused_with_the_place_and_the_facts(
    data: Any, datatype: Datatype, shape: tuple[int, ...], facts: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(data, datatype, shape)

    for fact in ["input 'x'", *facts]:
        assert fact in caught.value.message


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_values_that_are_not_finite_travel_as_strings(datatype: Datatype) -> None:
    values = np.array([1.5, np.nan, np.inf, -np.inf]).astype(NUMPY_DTYPES[datatype])

    written = orjson.dumps(json_from_tensor(tensor("x", values)))

    assert written == b'[1.5,"NaN","Infinity","-Infinity"]'
    back = array_from_json(orjson.loads(written), datatype, (4,), "input 'x'")
    assert np.array_equal(back.astype(float), values.astype(float), equal_nan=True)


@pytest.mark.parametrize("datatype", ["BF16", "FP32"])
def test_a_signalling_nan_is_a_nan(datatype: Datatype) -> None:
    bits = b"\x81\x7f" if datatype == "BF16" else b"\1\0\x80\x7f"
    values = np.frombuffer(bits, NUMPY_DTYPES[datatype])

    assert json_from_tensor(tensor("x", values)) == ["NaN"]


def test_numpy_reads_those_strings_by_itself() -> None:
    read_back = np.array([1.5, "NaN", "Infinity", "-Infinity"], np.float32)

    assert np.array_equal(read_back, [1.5, np.nan, np.inf, -np.inf], equal_nan=True)


def test_a_transposed_or_unaligned_array_is_written_in_row_major_order() -> None:
    turned = np.arange(6, dtype=np.int32).reshape(2, 3).T
    unaligned = np.frombuffer(b"\0" + np.array([1.5, 2.5], "<f4").tobytes(), "<f4", offset=1)

    option = orjson.OPT_SERIALIZE_NUMPY
    assert orjson.dumps(json_from_tensor(tensor("x", turned)), option=option) == b"[0,3,1,4,2,5]"
    assert orjson.dumps(json_from_tensor(tensor("x", unaligned)), option=option) == b"[1.5,2.5]"


def test_bytes_that_are_not_utf8_need_binary() -> None:
    with pytest.raises(InvalidRequest, match=r"output 'x' .* ask for it in binary"):
        json_from_tensor(tensor("x", np.array([b"\xff"], object)))
