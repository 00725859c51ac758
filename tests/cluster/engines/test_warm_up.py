from __future__ import annotations

import numpy as np
import pytest

from cluster.engines.warm_up import FREE_SIZE, run_zeros, zeros
from cluster.errors import EngineFailed
from cluster.tensors import Array, Signature, TensorSpec


def signature(*shape: int) -> Signature:
    return Signature(inputs=(TensorSpec(name="x", datatype="INT64", shape=shape),), outputs=())


def texts() -> Signature:
    return Signature(inputs=(TensorSpec(name="t", datatype="BYTES", shape=(-1,)),), outputs=())


def test_zeros_have_the_rows_asked_for_and_a_guess_for_any_other_free_size() -> None:
    made = zeros(signature(-1, -1, 3), is_batched=True, batch_size=2)

    assert made["x"].shape == (2, FREE_SIZE, 3)
    assert made["x"].dtype == np.int64
    assert zeros(texts(), is_batched=True, batch_size=2)["t"].tolist() == [b"0", b"0"]


def test_every_batch_size_is_run_and_an_unbatched_model_once() -> None:
    seen: list[tuple[int, ...]] = []

    def infer(inputs: dict[str, Array]) -> None:
        seen.append(inputs["x"].shape)

    run_zeros(infer, signature(-1, 3), (1, 8), is_batched=True)
    run_zeros(infer, signature(2, 3), (1, 8), is_batched=False)

    assert seen == [(1, 3), (8, 3), (2, 3)]


def fail(inputs: dict[str, Array]) -> None:
    raise EngineFailed("no")


def test_a_failure_counts_unless_the_shape_or_the_text_was_our_guess() -> None:
    run_zeros(fail, signature(-1, -1), (1,), is_batched=True)
    run_zeros(fail, texts(), (1,), is_batched=True)
    with pytest.raises(EngineFailed):
        run_zeros(fail, signature(-1, 3), (1,), is_batched=True)
