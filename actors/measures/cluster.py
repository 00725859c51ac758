"""Nodes, replicas and named actors as Ray and Serve say that they are now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray._private import state
from ray.serve.context import _get_global_client

from cluster.control.cluster_map import ActorSeen, NodeSeen, ReplicaSeen
from cluster.errors import CapacityError

_HEAD = "node:__internal_head__"


def look(app: str, prefix: str) -> tuple[list[NodeSeen], list[ReplicaSeen], list[ActorSeen]]:
    """All nodes, the replicas of `app` and of applications named `prefix…`, every shard.

    Raises: CapacityError in a process that is in no cluster.
    """
    if not ray.is_initialized():
        raise CapacityError("this door is in no Ray cluster")
    ours = replicas(lambda name: name == app or name.startswith(prefix))
    return nodes(), ours, actors("squadron:")


def nodes() -> list[NodeSeen]:
    return [
        NodeSeen(
            node_id=each["NodeID"],
            address=each["NodeManagerAddress"],
            is_alive=each["Alive"],
            num_cpus=each["Resources"].get("CPU", 0.0),
            num_gpus=each["Resources"].get("GPU", 0.0),
            is_head=_HEAD in each["Resources"],
        )
        for each in ray.nodes()
    ]


def replicas(is_ours: Callable[[str], bool]) -> list[ReplicaSeen]:
    """Of the applications whose names `is_ours` knows."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return []
    applications = client.get_serve_details().get("applications", {})
    return [
        _replica(deployment, told, each)
        for app, application in applications.items()
        if is_ours(app)
        for deployment, told in application.get("deployments", {}).items()
        for each in told.get("replicas", ())
        if each.get("node_id")
    ]


def actors(prefix: str) -> list[ActorSeen]:
    """Those that live and whose names begin so."""
    # The state API proper asks the dashboard, which need not be there.
    found = state.actors(actor_state_name="ALIVE").values()
    return [
        ActorSeen(node_id=each["Address"]["NodeID"], name=each["Name"], pid=each["Pid"])
        for each in found
        if each["Name"].startswith(prefix)
    ]


def _replica(deployment: str, told: Mapping[str, Any], each: Mapping[str, Any]) -> ReplicaSeen:
    options = told.get("deployment_config", {}).get("ray_actor_options") or {}
    return ReplicaSeen(
        node_id=each["node_id"],
        deployment=deployment,
        replica=each["replica_id"],
        state=str(getattr(each["state"], "value", each["state"])),
        pid=each.get("pid"),
        num_gpus=float(options.get("num_gpus") or 0.0),
    )
