"""Requests of different lengths in one batch: filled up for the engine, cut back for the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.errors import ConfigError, InvalidRequest
from cluster.tensors import Array, Signature, TensorSpec


class Padding:
    """`values`: input name -> what fills its free axis up to the longest of a batch.

    Each of those inputs has one free axis behind the batch's, and all of one request are equally
    long there. An output with a free axis is cut back to its request's length wherever it is as
    long as the batch was. The model must not let the filling change the rest: a mask of 0 does
    that, as with texts.

    Raises: ConfigError naming the tensor that does not fit.
    """

    def __init__(self, values: Mapping[str, float], signature: Signature) -> None:
        self._values = dict(values)
        there = [spec.name for spec in signature.inputs]
        unknown = sorted(set(values) - set(there))
        if unknown:
            raise ConfigError(
                f"batching.padding: no input {unknown[0]!r}; allowed: {', '.join(there)}",
                key="batching.padding",
                value=unknown[0],
                allowed=", ".join(there),
            )
        self._axes: dict[str, int] = {}
        for spec in signature.inputs:
            free = _free_axes(spec)
            if spec.name in values and (len(free) != 1 or spec.datatype == "BYTES"):
                raise ConfigError(
                    f"batching.padding: {spec.name} {list(spec.shape)} {spec.datatype} must be "
                    "numbers with one free axis behind the batch's",
                    key=f"batching.padding.{spec.name}",
                )
            if spec.name not in values and free:
                raise ConfigError(
                    f"batching.padding: {spec.name} {list(spec.shape)} has a free axis too: say "
                    "what fills it",
                    key="batching.padding",
                )
            if spec.name in values:
                self._axes[spec.name] = free[0]
        self._cut = {spec.name: free[0] for spec in signature.outputs if (free := _free_axes(spec))}

    def length(self, inputs: Mapping[str, Array]) -> int:
        """Of one request. Raises: InvalidRequest when its tensors do not agree."""
        lengths = {name: inputs[name].shape[axis] for name, axis in self._axes.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InvalidRequest(f"inputs that are padded together must be equally long: {said}")
        return next(iter(lengths.values()), 0)

    def merge(self, name: str, arrays: Sequence[Array]) -> Array:
        """The requests' rows under each other, filled up to the longest."""
        axis = self._axes.get(name)
        longest = max((array.shape[axis] for array in arrays), default=0) if axis else 0
        if axis is None or all(array.shape[axis] == longest for array in arrays):
            return np.concatenate(arrays)
        first = arrays[0]
        shape = list(first.shape)
        shape[0], shape[axis] = sum(array.shape[0] for array in arrays), longest
        whole = np.full(shape, self._values[name], dtype=first.dtype)
        start = 0
        for array in arrays:
            stop = start + array.shape[0]
            whole.swapaxes(1, axis)[start:stop, : array.shape[axis]] = array.swapaxes(1, axis)
            start = stop
        return whole

    def cut(self, name: str, array: Array, *, length: int, longest: int) -> Array:
        """A view of one request's rows of an output, as long as the request was."""
        axis = self._cut.get(name)
        if axis is None or length == longest or array.ndim <= axis or array.shape[axis] != longest:
            return array
        place = [slice(None)] * array.ndim
        place[axis] = slice(length)
        return array[tuple(place)]


def _free_axes(spec: TensorSpec) -> list[int]:
    return [axis for axis, size in enumerate(spec.shape) if axis and size == -1]
