"""The classification extension: the N best classes of an output, as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.errors import InvalidRequest
from cluster.tensors import Array, Tensor, bytes_array


def classes_of(tensor: Tensor, num_classes: int, labels: Sequence[str] = ()) -> Tensor:
    """A BYTES tensor of "value:index[:label]", highest value first; NaN counts as lowest.

    Shapes: `[batch, …]` becomes `[batch, n]`, `[classes]` becomes `[n]`, where n is `num_classes`
    or the number of classes if that is smaller. Of equal values the lower index comes first.
    Raises: InvalidRequest for an output that has no numbers to rank.
    Source: protocol section 5.4; the value is written as `std::to_string` does (six decimals).
    """
    array = tensor.array
    if tensor.datatype in ("BYTES", "BOOL") or array.ndim == 0:
        raise InvalidRequest(
            f"classification needs an output with numbers in at least one dimension; output "
            f"'{tensor.name}' is {tensor.datatype} {list(tensor.shape)}"
        )
    size = array.size // max(1, array.shape[0]) if array.ndim > 1 else array.size
    rows = array.reshape(array.shape[0], size) if array.ndim > 1 else array.reshape(1, size)
    count = min(num_classes, size)
    is_whole = rows.dtype.kind in "iu"
    texts: list[bytes] = []
    for row, best in zip(rows, _ranked(rows)[:, :count], strict=True):
        for index in best.tolist():
            value = str(row[index]) if is_whole else f"{float(row[index]):f}"
            label = f":{labels[index]}" if index < len(labels) else ""
            texts.append(f"{value}:{index}{label}".encode())
    shape = (rows.shape[0], count) if array.ndim > 1 else (count,)
    return Tensor(name=tensor.name, datatype="BYTES", array=bytes_array(texts, shape))


def _ranked(rows: Array) -> Array:
    """Class indices of each row, highest value first."""
    if rows.dtype.kind not in "iu":
        with np.errstate(invalid="ignore"):  # casting a signalling NaN warns
            rows = rows.astype(np.float64)
        rows = np.where(np.isnan(rows), -np.inf, rows)
    # Sorting the reversed row and reading it backwards keeps the lower index first among equals.
    backwards = np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1]
    ranked: Array = rows.shape[1] - 1 - backwards
    return ranked
