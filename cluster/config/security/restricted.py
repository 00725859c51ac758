"""Parts of the protocol that only callers who know a key may use, as Triton's restricted APIs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cluster.config.section import Section
from cluster.config.security.references import SecretText

ApiGroup = Literal[
    "health",
    "metadata",
    "inference",
    "shared-memory",
    "model-config",
    "model-repository",
    "statistics",
    "trace",
    "logging",
]


class RestrictedApis(Section):
    """Each of `apis` wants the header `header: value` over HTTP, and over gRPC the metadata key
    `triton-grpc-protocol-<header>` with the same value, best a
    reference: `${NAME}`, `${file:/path}`."""

    apis: tuple[ApiGroup, ...] = Field(min_length=1)
    header: str = Field(pattern=r"^[a-z0-9_-]+$")
    value: SecretText = Field(min_length=1, repr=False)
