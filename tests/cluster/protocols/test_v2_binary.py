from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.errors import InvalidRequest
from cluster.protocols.v2_binary import array_from_bytes, bytes_from_tensor
from cluster.tensors import Datatype, tensor


def test_numbers_are_little_endian_and_row_major() -> None:
    turned = np.arange(4, dtype=">i2").reshape(2, 2).T

    assert bytes(bytes_from_tensor(tensor("x", turned))) == b"\0\0\2\0\1\0\3\0"


def test_large_tensors_are_not_copied() -> None:
    array = np.zeros(4096, np.float32)

    chunk = bytes_from_tensor(tensor("x", array))

    assert len(chunk) == 4 * 4096
    assert np.shares_memory(np.frombuffer(chunk, np.uint8), array)


def test_bytes_elements_may_be_empty_and_hold_any_byte() -> None:
    items = [b"", b"\0\xff", b"abc"]

    data = bytes_from_tensor(tensor("x", np.array([*items, None], object)[:3]))

    assert bytes(data) == b"\0\0\0\0\2\0\0\0\0\xff\3\0\0\0abc"
    assert array_from_bytes(data, "BYTES", (3,), "input 'x'").tolist() == items


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "facts"),
    [
        (bytes(7), "FP32", (2,), ["Expected 8 bytes for FP32 [2], got 7"]),
        (bytes(9), "FP32", (2,), ["got 9"]),
        (b"\2", "BOOL", (1,), ["0 or 1"]),
        (b"", "BYTES", (1,), ["exactly 1", "got 0"]),
        (b"\0\0\0", "BYTES", (1,), ["exactly 1", "got 0", "3 bytes left"]),
        (b"\5\0\0\0abc", "BYTES", (1,), ["element 0 claims 5 bytes, 3 bytes are left"]),
        (b"\xff\xff\xff\xff", "BYTES", (1,), ["element 0 claims 4294967295 bytes"]),
        (b"\0\0\0\0x", "BYTES", (1,), ["exactly 1", "got 1 and 1 bytes left"]),
        (b"\1\0\0\0x\0\0\0\0", "BYTES", (1,), ["got 1 and 4 bytes left"]),
        (b"\4\0\0\0abcd", "BYTES", (2,), ["exactly 2", "got 1"]),
        (bytes(8), "BYTES", (2**40,), ["exactly 1099511627776", "got 0"]),
    ],
)
def test_bytes_that_do_not_fit_are_refused_with_both_counts(
    data: bytes, datatype: Datatype, shape: Any, facts: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        array_from_bytes(data, datatype, shape, "input 'x'")

    for fact in ["input 'x'", *facts]:
        assert fact in caught.value.message
