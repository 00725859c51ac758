"""What a door has for a request, before it takes its protocol's shape."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.requests import Parameter
from cluster.tensors import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """Outputs, and the variant that computed them. `cache`: how they came out of the cache."""

    variant: str
    version: str
    outputs: tuple[Tensor, ...]
    cache: str = ""

    def parameters(self) -> dict[str, Parameter]:
        """That tell the caller so."""
        found: dict[str, Parameter] = {"squadron_variant": self.variant}
        return {**found, "squadron_cache": self.cache} if self.cache else found
