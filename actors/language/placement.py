"""What Ray reserves for one replica of a language model."""

from __future__ import annotations

from typing import Any

import ray

from cluster.config.language.settings import LanguageConfig
from cluster.config.placement import BundleStrategy
from cluster.config.variant import ReplicaResources, VariantConfig

STRATEGIES: dict[str, BundleStrategy] = {
    "pack": "PACK",
    "strict_pack": "STRICT_PACK",
    "spread": "SPREAD",
}


def deployment_options(variant: VariantConfig, actor: dict[str, object]) -> dict[str, Any]:
    """Options of the Serve deployment, beside or in place of the usual ones.

    `actor`: the replica's own resources. A replica of several devices gets a placement group whose
    bundles vLLM's workers take; the replica itself lives in the first of them.
    """
    llm = variant.llm
    if llm is None:
        return {}
    if llm.num_devices > 1:
        return {
            "placement_group_bundles": bundles(llm, variant.resources),
            "placement_group_strategy": STRATEGIES[llm.placement],
            "ray_actor_options": {key: value for key, value in actor.items() if key != "num_gpus"},
            "max_surge_percent": 0,
        }
    if variant.resources.num_gpus is None and variant.device != "cpu" and _has_gpus():
        return {"ray_actor_options": {**actor, "num_gpus": 1}, "max_surge_percent": 0}
    return {}


def bundles(llm: LanguageConfig, resources: ReplicaResources) -> list[dict[str, float]]:
    """One a device; the first also has what the replica's own process takes."""
    first: dict[str, float] = {"CPU": resources.num_cpus, "GPU": 1}
    if resources.memory_bytes is not None:
        first["memory"] = resources.memory_bytes
    return [first, *({"GPU": 1.0} for _ in range(llm.num_devices - 1))]


def _has_gpus() -> bool:
    return bool(ray.is_initialized() and ray.cluster_resources().get("GPU", 0))
