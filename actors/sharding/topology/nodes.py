"""What the nodes of the running Ray have, and what they could have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import inf

import ray
from ray._private.state import state

from cluster.placement.capacity import Ask, NodeRoom

IN_KUBERNETES = "RAY_USAGE_STATS_KUBERAY_IN_USE"
"""KubeRay sets it for every container of Ray; its pods come in any order."""


def node_rooms() -> tuple[NodeRoom, ...]:
    """Whoever holds it at the moment; nothing without a Ray."""
    if not ray.is_initialized():
        return ()
    return tuple(
        NodeRoom(
            name=str(node["NodeManagerHostname"]),
            num_cpus=float(node["Resources"].get("CPU", 0)),
            num_gpus=float(node["Resources"].get("GPU", 0)),
            memory_bytes=_memory_bytes(node["Resources"]),
            labels=dict(node.get("Labels") or {}),
        )
        for node in ray.nodes()
        if node["Alive"]
    )


def _memory_bytes(resources: dict[str, float]) -> float:
    """What was free when Ray began there, which it divides between its objects and the others."""
    if "memory" not in resources:
        return inf
    return float(resources["memory"] + resources.get("object_store_memory", 0))


def could_have(asks: Sequence[Ask]) -> bool:
    """Whether nodes are still to come that may bring it: always in Kubernetes, else as many as
    Ray's autoscaler may start."""
    if os.environ.get(IN_KUBERNETES):
        return True
    most = state.get_max_resources_from_cluster_config()
    if most is None:
        return False
    gpus = sum(ask.num_gpus for ask in asks)
    cpus = sum(ask.num_cpus for ask in asks)
    return bool(most.get("GPU", 0) >= gpus and most.get("CPU", 0) >= cpus)
