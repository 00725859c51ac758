"""What was loaded and unloaded at run time, kept where the controller's other state is.

That document is written to Ray's internal key-value store, which is there on whatever node the
controller comes back on, and to a file, Redis or PostgreSQL, which outlive the cluster (see
`actors.experiments.kept`). The store alone would not: it lives in the head's GCS, in memory unless
that is made durable, so a model loaded at run time would be gone with the head.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from pydantic import Field, ValidationError
from ray.experimental.internal_kv import _internal_kv_get

from cluster.config.section import Section
from cluster.control.repository import Setting, Settings

_NAMESPACE = b"squadron"

logger = logging.getLogger("squadron.repository")


class Kept(Section):
    """`settings`: what is asked for; `serving`: what the doors were last told to use."""

    settings: Settings = Settings()
    serving: dict[str, Setting] = Field(default_factory=dict)


class Document(Protocol):
    """Where the controller's state is; `keep_repository` returns when it was written."""

    @property
    def repository(self) -> str: ...

    def keep_repository(self, text: str) -> None: ...


class RepositoryKeeper:
    """`earlier`: what a version before this one kept in a place of its own."""

    def __init__(self, document: Document, earlier: Callable[[], bytes | None]) -> None:
        self._document = document
        self._earlier = earlier

    def read(self) -> Kept:
        """Nothing when nothing was kept, or when it is of a version that says it in other words."""
        content = self._document.repository or self._earlier()
        if not content:
            return Kept()
        try:
            return Kept.model_validate_json(content)
        except ValidationError as error:
            logger.warning("what was kept of loaded models cannot be read and is left: %s", error)
            return Kept()

    def write(self, kept: Kept) -> None:
        self._document.keep_repository(kept.model_dump_json())


def kept_earlier(app: str) -> bytes | None:
    found: bytes | None = _internal_kv_get(f"repository:{app}", namespace=_NAMESPACE)
    return found
