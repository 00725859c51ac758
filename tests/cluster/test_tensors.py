from __future__ import annotations

import numpy as np
import pytest

from cluster.tensors import DATATYPES, NUMPY_DTYPES, bytes_array, datatype_of, tensor


@pytest.mark.parametrize("datatype", [d for d in DATATYPES if d != "BYTES"])
def test_every_numeric_datatype_is_found_again_from_its_array(datatype: str) -> None:
    array = np.zeros(3, dtype=NUMPY_DTYPES[datatype])  # type: ignore[index]

    assert datatype_of(array) == datatype


def test_a_dtype_without_a_name_in_the_protocol_is_refused() -> None:
    with pytest.raises(TypeError, match="complex128"):
        datatype_of(np.zeros(1, dtype=np.complex128))


def test_text_becomes_utf8_bytes_and_keeps_trailing_nuls() -> None:
    made = tensor("text", np.array(["grün", "x\0"], dtype=object))

    assert made.datatype == "BYTES"
    assert made.array.tolist() == ["grün".encode(), b"x\0"]
    assert made.num_bytes == 5 + 2 + 2 * 4


def test_a_bytes_array_keeps_elements_of_equal_length_apart() -> None:
    array = bytes_array([b"ab\0", b"cd\0"], (2, 1))

    assert array.shape == (2, 1)
    assert array[1, 0] == b"cd\0"
