"""What an engine is warmed up with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cluster.errors import SquadronError
from cluster.tensors import NUMPY_DTYPES, Array, Signature, bytes_array

FREE_SIZE = 16
"""Stands for a dimension of any size that is not the batch: a short text, a small picture."""


def zeros(signature: Signature, *, is_batched: bool, batch_size: int) -> dict[str, Array]:
    """Inputs of nothing but zeros, with `batch_size` rows; a text is `0`, a number too."""
    made: dict[str, Array] = {}
    for spec in signature.inputs:
        shape = tuple(FREE_SIZE if size == -1 else size for size in spec.shape)
        if is_batched:
            shape = (batch_size, *shape[1:])
        if spec.datatype == "BYTES":
            made[spec.name] = bytes_array([b"0"] * int(np.prod(shape)), shape)
        else:
            made[spec.name] = np.zeros(shape, dtype=NUMPY_DTYPES[spec.datatype])
    return made


def run_zeros(
    infer: Callable[[dict[str, Array]], object],
    signature: Signature,
    batch_sizes: tuple[int, ...],
    *,
    is_batched: bool,
    times: int = 1,
) -> None:
    """Raises: what `infer` raises, unless shapes or texts were partly our guess."""
    first = 1 if is_batched else 0
    is_guess = any(
        -1 in spec.shape[first:] or spec.datatype == "BYTES" for spec in signature.inputs
    )
    for batch_size in batch_sizes if is_batched else (1,):
        inputs = zeros(signature, is_batched=is_batched, batch_size=batch_size)
        try:
            for _ in range(times):
                infer(inputs)
        except SquadronError:
            # A size or a text that we made up may not suit the model; callers send what does.
            if not is_guess:
                raise
