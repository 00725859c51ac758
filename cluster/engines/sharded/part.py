"""The one interface of a shard's computation: some layers of a model, or a slice of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from cluster.config.model_card import ModelCard
from cluster.placement.partition import Shard

Values = dict[str, Any]
"""Tensors by name on their way between parts: numpy arrays, or tensors of the part's library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSetup:
    """What a part needs to load. `group`: the process group of its slices (tensor parallelism);
    `artefact`: the file of its stage, for a model that is cut into files.

    `max_memory_bytes` bounds the weights that are resident at once; None keeps all of them.
    """

    card: ModelCard
    folder: Path
    shard: Shard
    threads: int = 1
    dtype: str = "float32"
    max_memory_bytes: int | None = None
    kv_cache: Literal["dynamic", "static"] = "dynamic"
    kv_cache_tokens: int = 2048
    artefact: str = ""
    group: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFacts:
    """What a part says of itself once loaded. `opened`: every tensor that it read, by the name in
    the checkpoint; `weight_bytes`: those it holds or streams."""

    device: str
    weight_bytes: int
    opened: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a run is for. `sequence`: the key-value cache that it goes on with ("" is none);
    `is_last_only`: only the last position's output is wanted; `ends`: caches to drop; `trace`: the
    span that it belongs to, of a sampled batch."""

    sequence: str = ""
    is_last_only: bool = False
    ends: tuple[str, ...] = field(default=())
    trace: str = ""


class Part(Protocol):
    """Not thread-safe: one caller at a time.

    Raises: ConfigError from `load`; InvalidRequest, OutOfMemory or EngineFailed from `run`.
    """

    def load(self) -> PartFacts: ...

    def run(self, values: Values, step: Step) -> Values:
        """What the next part takes; from the last part, the model's outputs."""

    def drop(self, sequences: Iterable[str]) -> None:
        """Forget the key-value caches of those; unknown ones are no error."""

    def close(self) -> None: ...
