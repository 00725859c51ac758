"""The one interface of what answers a model's calls: in this process, or behind a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from cluster.requests import Parameter
from cluster.tensors import Array, Signature


class Backend(Protocol):
    """May be called from several threads.

    Raises: SquadronError from every method, of the class that says who must act.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_remote(self) -> bool: ...

    @property
    def is_batched(self) -> bool:
        """Whether rows of several calls may be put into one."""

    @property
    def signature(self) -> Signature:
        """What callers give and get."""

    def infer(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        """Those of the outputs named (none: all that are answered unasked)."""

    def close(self) -> None:
        """May be called twice; whoever calls `infer` later is refused."""


@runtime_checkable
class Generates(Protocol):
    """A backend of a language model."""

    def generate(
        self, prompt: str | Array, parameters: Mapping[str, Parameter], *, use_cache: bool
    ) -> Iterator[str | int]:
        """Pieces of text for a prompt of text, token ids for a prompt of token ids."""
