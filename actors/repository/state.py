"""What was loaded and unloaded at run time, kept where a restarted controller finds it.

Ray's internal key-value store lives in the head's GCS: it outlives every actor and node but the
head's, is there on whatever node the controller comes back on, and survives the head too where the
GCS is made fault tolerant. A file would be on one node only.
"""

from __future__ import annotations

from pydantic import Field, ValidationError
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from cluster.config.section import Section
from cluster.control.repository import Setting, Settings

_NAMESPACE = b"squadron"


class Kept(Section):
    """`settings`: what is asked for; `serving`: what the doors were last told to use."""

    settings: Settings = Settings()
    serving: dict[str, Setting] = Field(default_factory=dict)


def read(app: str) -> Kept:
    """Nothing when nothing was kept, or when it is of a version that says it in other words."""
    content = _internal_kv_get(_key(app), namespace=_NAMESPACE)
    if not content:
        return Kept()
    try:
        return Kept.model_validate_json(content)
    except ValidationError:
        return Kept()


def write(app: str, kept: Kept) -> None:
    _internal_kv_put(_key(app), kept.model_dump_json(), overwrite=True, namespace=_NAMESPACE)


def _key(app: str) -> str:
    return f"repository:{app}"
