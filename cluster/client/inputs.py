"""What a caller gives, as named arrays; calls put together into batches and taken apart again."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from cluster.errors import InvalidRequest
from cluster.tensors import NUMPY_DTYPES, Array, Signature, TensorSpec, bytes_array


def named_inputs(given: Any, named: Mapping[str, Any], signature: Signature) -> dict[str, Array]:
    """The inputs by name: of a mapping, of keywords, or of the one thing that a model with one
    input is given.

    Arrays and tensors are taken as they are. Lists, numbers and texts become arrays of the input's
    datatype; a text or a file's bytes alone is one row.
    Raises: InvalidRequest for what cannot be such an array.
    """
    if given is not None and named:
        raise InvalidRequest("give the inputs as one mapping or by keywords, not both")
    pairs: Mapping[str, Any]
    if isinstance(given, Mapping):
        pairs = given
    elif given is None:
        pairs = named
    elif len(signature.inputs) == 1:
        pairs = {signature.inputs[0].name: given}
    else:
        takes = ", ".join(spec.name for spec in signature.inputs)
        raise InvalidRequest(f"the model has {len(signature.inputs)} inputs, name each: {takes}")
    return {str(name): as_array(value, signature.input(name)) for name, value in pairs.items()}


def as_array(value: Any, spec: TensorSpec | None) -> Array:
    """One input. Raises: InvalidRequest naming it."""
    if hasattr(value, "detach"):
        return _of_torch(value)
    if isinstance(value, np.ndarray):
        return _texts(value.ravel().tolist(), value.shape) if value.dtype.kind in "SUO" else value
    rank = len(spec.shape) if spec is not None else 1
    if isinstance(value, str | bytes):
        return _texts([value], (1,) * rank)
    name = spec.name if spec is not None else "input"
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise InvalidRequest(f"input {name!r}: rows of different lengths: {error}") from None
    is_text = spec is None or spec.datatype == "BYTES"
    if found.dtype.kind in "SU" or (found.dtype.kind == "O" and is_text):
        # Asked for again: numpy cuts the zero bytes at the end of `bytes`.
        found = np.asarray(value, dtype=np.object_)
        shape = found.shape if found.ndim >= rank else (*found.shape, *(1,) * (rank - found.ndim))
        return _texts(found.ravel().tolist(), shape, name)
    if spec is None or spec.datatype == "BYTES":
        return found
    wanted = NUMPY_DTYPES[spec.datatype]
    if found.dtype.kind == "f" and spec.datatype.startswith(("INT", "UINT")):
        raise InvalidRequest(f"input {name!r} is {spec.datatype}, got fractions")
    try:
        return np.array(value, dtype=wanted)
    except (OverflowError, ValueError, TypeError) as error:
        raise InvalidRequest(f"input {name!r} is {spec.datatype}: {error}") from None


def num_rows(inputs: Mapping[str, Array], *, is_batched: bool) -> int:
    """1 for a model without a batch dimension."""
    first = next(iter(inputs.values()), None)
    if not is_batched or first is None or not first.ndim:
        return 1
    return int(first.shape[0])


def shape_key(inputs: Mapping[str, Array]) -> Hashable:
    """Calls of equal keys can be put into one."""
    return tuple((name, array.shape[1:], array.dtype.str) for name, array in sorted(inputs.items()))


def together(calls: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The rows of calls of one `shape_key` under each other."""
    if len(calls) == 1:
        return dict(calls[0])
    return {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}


def apart(answer: Mapping[str, Array], rows: Sequence[int]) -> list[dict[str, Array]]:
    """Each call's rows of the answer to `together`, copied out of it."""
    found: list[dict[str, Array]] = []
    start = 0
    for count in rows:
        found.append({k: array[start : start + count].copy() for k, array in answer.items()})
        start += count
    return found


def groups(
    calls: Sequence[Mapping[str, Array]], max_rows: int, *, is_batched: bool
) -> list[list[int]]:
    """Indices of the calls that go together, in order; a group has at most `max_rows` rows unless
    one call alone has more."""
    if not is_batched:
        return [[index] for index in range(len(calls))]
    found: list[list[int]] = []
    open_of: dict[Hashable, tuple[list[int], int]] = {}
    for index, call in enumerate(calls):
        key, rows = shape_key(call), num_rows(call, is_batched=True)
        group, filled = open_of.get(key, ([], max_rows))
        if filled + rows > max_rows:
            group, filled = [], 0
            found.append(group)
        group.append(index)
        open_of[key] = group, filled + rows
    return found


def _of_torch(value: Any) -> Array:
    tensor = value.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        import torch

        bits: Array = tensor.contiguous().view(torch.uint16).numpy()
        return bits.view(NUMPY_DTYPES["BF16"])
    array: Array = tensor.numpy()
    return array


def _texts(items: list[Any], shape: tuple[int, ...], name: str = "input") -> Array:
    for item in items:
        if not isinstance(item, str | bytes):
            raise InvalidRequest(f"input {name!r}: {type(item).__name__} is no text and no number")
    return bytes_array([x.encode() if isinstance(x, str) else x for x in items], shape)
