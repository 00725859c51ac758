"""Key-value caches of the sequences that a part generates for, of its own layers only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from transformers import DynamicCache, StaticCache


class Caches:
    """`config` has as many layers as the part; a cut by heads shows in the tensors themselves."""

    def __init__(self, config: Any, kind: Literal["dynamic", "static"], num_tokens: int) -> None:
        self._config = config
        self._kind = kind
        self._num_tokens = num_tokens
        self._open: dict[str, Any] = {}

    def of(self, sequence: str) -> Any:
        if sequence not in self._open:
            self._open[sequence] = (
                StaticCache(self._config, max_cache_len=self._num_tokens)
                if self._kind == "static"
                else DynamicCache(config=self._config)
            )
        return self._open[sequence]

    def drop(self, sequences: Iterable[str]) -> None:
        for sequence in sequences:
            self._open.pop(sequence, None)

    def __len__(self) -> int:
        return len(self._open)
