"""What fetching and exporting tell whoever watches; the command line draws it, tests ignore it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, Self


class Transfer(Protocol):
    """One running download."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def update(self, num_bytes: int, /) -> None:
        """`num_bytes` more have arrived."""


class Progress(Protocol):
    def download(self, file: str, total_bytes: int | None) -> Transfer: ...

    def step(self, what: str) -> AbstractContextManager[None]:
        """A piece of work of unknown length: starts on entry, done on exit."""


class SilentTransfer:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def update(self, num_bytes: int, /) -> None:
        return None


class Silent:
    """Says nothing."""

    def download(self, file: str, total_bytes: int | None) -> Transfer:
        return SilentTransfer()

    def step(self, what: str) -> AbstractContextManager[None]:
        return nullcontext()
