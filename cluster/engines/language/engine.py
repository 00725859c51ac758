"""The one interface of every engine that generates text. Asynchronous: it has a loop of its own,
in which requests join and leave the batch at any step."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.config.language.settings import LanguageConfig
from cluster.engines.engine import EngineFacts
from cluster.generation import Delta, EngineLoad, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageSetup:
    """`folder` holds a Hugging Face directory. `device` and `threads` as in `EngineSetup`."""

    name: str
    folder: Path
    config: LanguageConfig
    device: str = "auto"
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """`lora`: the adapter to use, empty for the model itself. A smaller `priority` goes first.
    `cache_salt`: keys and values are shared only with prompts that have the same one."""

    request_id: str
    token_ids: tuple[int, ...]
    lora: str = ""
    priority: int = 0
    cache_salt: str = ""


class LanguageEngine(Protocol):
    """Raises: ConfigError from `start`; InvalidRequest from `generate` before its first delta for
    what the model cannot take; EngineFailed for the rest."""

    def __init__(self, setup: LanguageSetup) -> None: ...

    async def start(self) -> None:
        """Load and warm up, on the loop that it will be used on."""

    @property
    def facts(self) -> EngineFacts:
        """After `start`."""

    @property
    def max_model_len(self) -> int:
        """Prompt and answer together, in tokens. After `start`."""

    def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        """The choices' deltas as they come, each choice ending with a finish reason. With
        `sampling.streams` false each choice comes as one delta. Closing it, or cancelling who reads
        it, takes the request out of the batch and frees its memory."""

    def load(self) -> EngineLoad: ...

    def check_health(self) -> None:
        """Raises: EngineFailed when it cannot answer any more."""

    async def add_lora(self, name: str, path: str) -> None:
        """Under a name that is taken it goes in the other's place, for requests from now on.

        Raises: InvalidRequest for an adapter that does not fit, Unsupported."""

    async def remove_lora(self, name: str) -> None:
        """Raises: ModelNotFound, Unsupported."""

    async def close(self) -> None: ...
