"""The engine's part of a batch: never more rows at once than its memory was seen to hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.engines.engine import Engine
from cluster.errors import OutOfMemory
from cluster.tensors import Array


class EngineRun:
    """One caller at a time. `max_rows`: what was learned from running out of memory."""

    def __init__(self, engine: Engine, *, max_rows: int, is_batched: bool) -> None:
        self.max_rows = max_rows
        self._engine = engine
        self._is_batched = is_batched
        self._buffers: dict[str, Array] = {}

    def warm_up(self, rows: int) -> None:
        """Run zeros; with too little memory for `rows`, half as many.

        Raises: OutOfMemory when there is too little for one.
        """
        while True:
            try:
                self._engine.warm_up((rows,))
            except OutOfMemory:
                if rows == 1:
                    raise
                rows = self.max_rows = rows // 2
            else:
                return

    def join(self, parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
        """The rows of several requests under each other, in memory that the next batch reuses: a
        fresh array of a few megabytes costs as much in page faults as in copying."""
        if len(parts) == 1:
            return parts[0]
        return {name: self._joined(name, [part[name] for part in parts]) for name in parts[0]}

    def infer(self, inputs: dict[str, Array], rows: int) -> dict[str, Array]:
        """The outputs for all rows. A batch that is too large for the memory is run in parts.

        Raises: what the engine raises; OutOfMemory when one row alone is too much.
        """
        if self._is_batched and rows > self.max_rows:
            return self._in_parts(inputs, rows)
        try:
            outputs = self._engine.infer(inputs)
        except OutOfMemory:
            if not self._is_batched or rows <= 1:
                raise
            self.max_rows = rows // 2
            return self._in_parts(inputs, rows)
        if self._buffers:
            # An engine may give back what it was given; the buffer is the next batch's.
            return {name: self._own(array) for name, array in outputs.items()}
        return outputs

    def _in_parts(self, inputs: dict[str, Array], rows: int) -> dict[str, Array]:
        parts: list[dict[str, Array]] = []
        start = 0
        while start < rows:
            stop = min(rows, start + self.max_rows)
            part = {name: array[start:stop] for name, array in inputs.items()}
            parts.append(self.infer(part, stop - start))
            start = stop
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _joined(self, name: str, arrays: list[Array]) -> Array:
        first = arrays[0]
        rows = sum([array.shape[0] for array in arrays])
        if first.dtype.hasobject or rows > self.max_rows:
            return np.concatenate(arrays)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.dtype != first.dtype or buffer.shape[1:] != first.shape[1:]:
            buffer = np.empty((self.max_rows, *first.shape[1:]), first.dtype)
            self._buffers[name] = buffer
        return np.concatenate(arrays, out=buffer[:rows])

    def _own(self, array: Array) -> Array:
        if any(np.may_share_memory(array, buffer) for buffer in self._buffers.values()):
            return array.copy()
        return array
