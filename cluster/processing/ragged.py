"""Requests of different lengths in one batch without filling: laid end to end for the engine.

Source: Triton's user guide, "Ragged Batching"; the kinds of `batch_input` are those of
model_config.proto. A row of a request counts as one item, so that callers may send several rows of
one length (Triton counts a request as one item, whatever its rows).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np

from cluster.config.batching.ragged import BatchInputKind, RaggedConfig
from cluster.errors import ConfigError
from cluster.tensors import NUMPY_DTYPES, Array, Signature, TensorSpec


class Ragged:
    """`artefact`: `[-1]` for each ragged input, the batch first in every other and in every output.
    The public `signature` has rows first everywhere, and none of the batch inputs.

    Raises: ConfigError naming the tensor that does not fit.
    """

    def __init__(self, config: RaggedConfig, artefact: Signature) -> None:
        self._config = config
        self._specs = {spec.name: spec for spec in artefact.inputs}
        for name in config.inputs:
            if self._spec(name, "inputs").shape != (-1,):
                _refuse(f"inputs.{name}", f"is {list(self._specs[name].shape)}", "[-1]")
        for name, each in config.batch_inputs.items():
            spec = self._spec(name, "batch_inputs")
            rank = 2 if each.kind == "item_shape" else 1
            if len(spec.shape) != rank or spec.datatype == "BYTES":
                said = f"is {spec.datatype} {list(spec.shape)}"
                _refuse(f"batch_inputs.{name}", said, f"numbers with {rank} axes for {each.kind}")
        plain = [spec for spec in artefact.inputs if not self._is_special(spec.name)]
        for spec in (*plain, *artefact.outputs, *artefact.extra_outputs):
            if spec.shape[:1] != (-1,):
                _refuse(spec.name, f"is {list(spec.shape)}", "-1 first: a row for each item")
        self.signature = replace(
            artefact,
            inputs=tuple(
                replace(spec, shape=(-1, -1)) if spec.name in config.inputs else spec
                for spec in artefact.inputs
                if spec.name not in config.batch_inputs
            ),
        )

    def length(self, inputs: Mapping[str, Array]) -> int:
        """Elements of a row of a request, of the longest input."""
        return max(int(inputs[name].shape[1]) for name in self._config.inputs)

    def merge(self, requests: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        """The artefact's inputs for all of them."""
        merged: dict[str, Array] = {}
        counts: dict[str, Array] = {}
        for name in (spec.name for spec in self.signature.inputs):
            arrays = [request[name] for request in requests]
            if name in self._config.inputs:
                rows = [array.shape[0] for array in arrays]
                counts[name] = np.repeat([array.shape[1] for array in arrays], rows)
                arrays = [array.reshape(-1) for array in arrays]
            merged[name] = np.concatenate(arrays)
        for name, each in self._config.batch_inputs.items():
            dtype = NUMPY_DTYPES[self._specs[name].datatype]
            merged[name] = describe(each.kind, counts[each.source]).astype(dtype)
        return merged

    def _is_special(self, name: str) -> bool:
        return name in self._config.inputs or name in self._config.batch_inputs

    def _spec(self, name: str, section: str) -> TensorSpec:
        found = self._specs.get(name)
        if found is None:
            _refuse(f"{section}.{name}", "is no input of the artefact", ", ".join(self._specs))
        return found


def describe(kind: BatchInputKind, counts: Array) -> Array:
    """What a batch input holds. `counts`: the elements of each item."""
    match kind:
        case "element_count" | "item_shape_flatten":
            return counts
        case "accumulated_element_count":
            return np.cumsum(counts)
        case "accumulated_element_count_with_zero":
            return np.concatenate([[0], np.cumsum(counts)])
        case "max_element_count_as_shape":
            # The shape alone is the message.
            return np.zeros(int(counts.max()))
        case "item_shape":
            return counts[:, None]


def _refuse(name: str, said: str, allowed: str) -> NoReturn:
    key = f"batching.ragged.{name}"
    raise ConfigError(f"{key} {said}; allowed: {allowed}", key=key, allowed=allowed)
