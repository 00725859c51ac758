"""The one interface of every engine, and what an engine can tell of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from cluster.config.model_card import ModelCard
from cluster.requests import Parameter
from cluster.tensors import Array, Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """What an engine needs to load one model version.

    `folder` holds `model.yaml` and the artefact. `device` is what the config asked for ("auto",
    "cpu", "cuda", "cuda:1", "mps", …); `threads` are intra-op threads. `options` go to the
    engine after it has checked their names. `batch_sizes`: those that will be sent most; engines
    that build for shapes build for these (empty: unknown).
    """

    card: ModelCard
    folder: Path
    device: str = "auto"
    threads: int = 1
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    batch_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What an engine says of itself once loaded.

    `weight_bytes` counts the artefact's weights in memory (0: unknown). `provider` is the
    runtime's own name for what computes ("CPUExecutionProvider", "torch.export", …).
    """

    engine: str
    provider: str
    device: str
    precision: str
    threads: int
    weight_bytes: int


class Engine(Protocol):
    """Computes batches of one model on one device. Not thread-safe: one caller at a time.

    `infer` takes the artefact's own inputs by name, `[batch, …]` each when the model is batched,
    and gives its outputs by name. Arrays given are not changed; arrays returned are the caller's.

    Raises: ConfigError from `__init__` and `load` (what to install, what does not fit);
    InvalidRequest from `infer` for inputs that the artefact refuses; EngineFailed for the rest.
    """

    def __init__(self, setup: EngineSetup) -> None: ...

    @property
    def signature(self) -> Signature:
        """The artefact's own inputs and outputs. After `load`."""

    @property
    def facts(self) -> EngineFacts:
        """After `load`."""

    def load(self) -> None: ...

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        """Run zeros once at each batch size, so that the first caller does not pay for it."""

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]: ...

    def close(self) -> None: ...


@runtime_checkable
class StreamingEngine(Protocol):
    """An engine whose models may be decoupled: one request, any number of responses.

    For such a model `stream` stands in `infer`'s place: it takes a request's inputs and parameters
    and yields the outputs of each response. Many streams may be open at once; each is advanced
    and closed by the engine's one caller, who takes them in turn: a step that sleeps holds up the
    others. Closing a stream ends the model's work on it.
    """

    def stream(
        self, inputs: dict[str, Array], parameters: dict[str, Parameter]
    ) -> Iterator[dict[str, Array]]: ...
