"""Nodes, replicas and named actors as Ray and Serve say that they are now."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray._private import state
from ray.core.generated import gcs_pb2
from ray.serve.context import _get_global_client

from cluster.control.cluster_map import ActorSeen, NodeSeen, ReplicaSeen
from cluster.errors import CapacityError

_HEAD = "node:__internal_head__"
_ACCELERATOR = "accelerator_type:"
_GPU = re.compile(r"GPU(_group_.+)?")
"""A GPU as Ray's tables name what an actor holds: by itself, or as part of a placement group."""


def look(app: str, prefix: str) -> tuple[list[NodeSeen], list[ReplicaSeen], list[ActorSeen]]:
    """All nodes, the replicas of `app` and of applications named `prefix…`, every shard.

    Raises: CapacityError in a process that is in no cluster.
    """
    if not ray.is_initialized():
        raise CapacityError("this door is in no Ray cluster")
    living = actors()
    ours = replicas(
        lambda name: name == app or name.startswith(prefix),
        {each.name: each.gpus for each in living},
    )
    return nodes(), ours, [each for each in living if each.name.startswith("squadron:")]


def nodes() -> list[NodeSeen]:
    return [
        NodeSeen(
            node_id=each["NodeID"],
            address=each["NodeManagerAddress"],
            is_alive=each["Alive"],
            num_cpus=each["Resources"].get("CPU", 0.0),
            num_gpus=each["Resources"].get("GPU", 0.0),
            accelerator=", ".join(
                sorted(
                    name.removeprefix(_ACCELERATOR)
                    for name in each["Resources"]
                    if name.startswith(_ACCELERATOR)
                )
            ),
            is_head=_HEAD in each["Resources"],
        )
        for each in ray.nodes()
    ]


def replicas(
    is_ours: Callable[[str], bool], gpus: Mapping[str, tuple[int, ...]]
) -> list[ReplicaSeen]:
    """Of the applications whose names `is_ours` knows. `gpus`: of actors, by their names."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return []
    applications = client.get_serve_details().get("applications", {})
    return [
        _replica(deployment, told, each, gpus.get(str(each.get("actor_name")), ()))
        for app, application in applications.items()
        if is_ours(app)
        for deployment, told in application.get("deployments", {}).items()
        for each in told.get("replicas", ())
        if each.get("node_id")
    ]


def actors() -> list[ActorSeen]:
    """Those that live and have a name, each with the GPUs that Ray gave it."""
    # The state API proper asks the dashboard, which need not be there, and knows no GPUs.
    table = state.state._connect_and_get_accessor().get_actor_table(None, "ALIVE")
    kind = gcs_pb2.ActorTableData  # type: ignore[attr-defined]  # generated
    found = (kind.FromString(each) for each in table)
    return [
        ActorSeen(
            node_id=each.address.node_id.hex(), name=each.name, pid=each.pid, gpus=_gpus(each)
        )
        for each in found
        if each.name
    ]


def _gpus(actor: Any) -> tuple[int, ...]:
    held = (each for each in actor.resource_mapping if _GPU.fullmatch(each.name))
    return tuple(sorted({part.index for each in held for part in each.resource_ids}))


def _replica(
    deployment: str, told: Mapping[str, Any], each: Mapping[str, Any], gpus: tuple[int, ...]
) -> ReplicaSeen:
    options = told.get("deployment_config", {}).get("ray_actor_options") or {}
    return ReplicaSeen(
        node_id=each["node_id"],
        deployment=deployment,
        replica=each["replica_id"],
        state=str(getattr(each["state"], "value", each["state"])),
        pid=each.get("pid"),
        num_gpus=float(options.get("num_gpus") or 0.0),
        gpus=gpus,
    )
