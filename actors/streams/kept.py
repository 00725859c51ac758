"""The responses of one stream as one answer: for a mirror to compare."""

from __future__ import annotations

import numpy as np

from cluster.protocols.openai.spoken import spoken
from cluster.tensors import Tensor, bytes_array

MAX_BYTES = 2**22
"""An answer that is longer is not compared: it would have to lie in the door till its end."""
TEXT = "text_output"


class KeptStream:
    """`is_language`: what its texts say counts, not how they were cut into responses."""

    def __init__(self, *, is_language: bool) -> None:
        self._is_language = is_language
        self._found: list[tuple[Tensor, ...]] = []
        self._num_bytes = 0

    @property
    def is_whole(self) -> bool:
        return self._num_bytes <= MAX_BYTES

    def add(self, outputs: tuple[Tensor, ...]) -> None:
        """One response more."""
        self._num_bytes += sum(tensor.num_bytes for tensor in outputs)
        if self.is_whole:
            self._found.append(outputs)
        else:
            self._found.clear()

    def answer(self) -> tuple[Tensor, ...]:
        """Outputs by name; `text_output` one text a choice, others one response after the other
        (`[response 0's values, response 1's, …]`, flat)."""
        named: dict[str, list[Tensor]] = {}
        for outputs in self._found:
            for tensor in outputs:
                named.setdefault(tensor.name, []).append(tensor)
        if self._is_language:
            texts = spoken(bytes(each.array.item()) for each in named.get(TEXT, ()))
            array = bytes_array([each.encode() for each in texts], (len(texts),))
            return (Tensor(name=TEXT, datatype="BYTES", array=array),)
        return tuple(_joined(tensors) for tensors in named.values())


def _joined(tensors: list[Tensor]) -> Tensor:
    array = np.concatenate([each.array.ravel() for each in tensors])
    return Tensor(name=tensors[0].name, datatype=tensors[0].datatype, array=array)
