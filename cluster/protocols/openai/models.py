"""`/v1/models`: what clients may put into the field `model`."""

from __future__ import annotations

from typing import Any


def model_object(
    name: str, *, created_s: int, root: str = "", parent: str = "", max_model_len: int | None = None
) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created_s,
        "owned_by": "squadron",
        "root": root or name,
        "parent": parent or None,
        "max_model_len": max_model_len,
        "permission": [],
    }
