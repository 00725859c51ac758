"""A stream kept for a mirror: one answer of many responses, within bounds."""

from __future__ import annotations

import numpy as np

from actors.streams.kept import MAX_BYTES, KeptStream
from cluster.tensors import Tensor, bytes_array, tensor


def text(piece: bytes) -> tuple[Tensor, ...]:
    return (Tensor(name="text_output", datatype="BYTES", array=bytes_array([piece], (1,))),)


def test_texts_are_joined_to_what_was_said() -> None:
    kept = KeptStream(is_language=True)
    for piece in (b"Once ", b"upon"):
        kept.add(text(piece))

    (answer,) = kept.answer()

    assert answer.array.tolist() == [b"Once upon"]


def test_numbers_follow_each_other() -> None:
    kept = KeptStream(is_language=False)
    for value in (1, 2, 3):
        kept.add((tensor("Y", np.array([value], np.int32)),))

    (answer,) = kept.answer()

    assert (answer.name, answer.datatype, answer.array.tolist()) == ("Y", "INT32", [1, 2, 3])


def test_an_answer_that_is_too_long_is_not_kept() -> None:
    kept = KeptStream(is_language=True)
    kept.add(text(b"a"))
    kept.add(text(bytes(MAX_BYTES)))

    assert not kept.is_whole
