"""Whether the doors hold a model themselves instead of reaching it in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.config.variant import VariantConfig
from cluster.models import EngineName

MAX_BYTES = 2**20
"""The largest artefact that `auto` puts into a door: heads, rules and glue, whose computing costs
less than a hop. A hop to another process on the node costs 40 to 100 µs of CPU (measured)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Colocation:
    """`is_colocated`, and why."""

    is_colocated: bool
    reason: str


def colocate(variant: VariantConfig, *, engine: EngineName, artefact_bytes: int) -> Colocation:
    """What the configuration says; with `auto`, what the model is."""
    if variant.colocate != "auto":
        return Colocation(
            is_colocated=variant.colocate == "always", reason=f"colocate: {variant.colocate}"
        )
    why_not = _why_not(variant, engine, artefact_bytes)
    if why_not:
        return Colocation(is_colocated=False, reason=f"auto: {why_not}")
    return Colocation(
        is_colocated=True, reason=f"auto: {artefact_bytes} bytes on the CPU, cheaper than a hop"
    )


def _why_not(variant: VariantConfig, engine: EngineName, artefact_bytes: int) -> str:
    if variant.sequences is not None:
        return "its sequences belong to replicas"
    if variant.placement.is_sharded:
        return "its shards have processes of their own"
    if engine != "onnxruntime":
        return f"engine {engine} has a process of its own"
    if variant.device != "cpu":
        return f"device is {variant.device}, not cpu"
    if variant.autoscaling is not None:
        return "it is autoscaled"
    if variant.replicas != 1:
        return f"{variant.replicas} replicas"
    if variant.optional:
        return "optional: the door must be ready without it"
    if variant.limits.is_set:
        return "limits need a process of their own"
    if artefact_bytes > MAX_BYTES:
        return f"{artefact_bytes} bytes, more than {MAX_BYTES}"
    return ""
