"""The Serve applications of models that can be loaded and unloaded: seen, deployed, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.context import _get_global_client

from actors.deployments import bind_replica, replica_setup
from actors.sharding.room import Room
from actors.variant_facts import Origin
from cluster.config.server import ServerConfig
from cluster.config.variant import VariantConfig
from cluster.control.reconcile import DeploymentSeen

Seen = Mapping[str, Mapping[str, DeploymentSeen]]
"""Application -> deployment -> what Serve says of it. Those on their way out are left out."""


def observe() -> Seen:
    """What `serve.status()` is made of, as Serve's REST interface shows it.

    `serve.status()` itself makes a model of every part of the configuration first, which pickles
    the router's class of each deployment: nine tenths of what looking cost.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return {}
    return seen_of(client.get_serve_details())


def seen_of(details: Mapping[str, Any]) -> Seen:
    """From `ServeInstanceDetails` as plain data."""
    return {
        name: {
            deployment: _deployment(seen)
            for deployment, seen in application.get("deployments", {}).items()
        }
        for name, application in details.get("applications", {}).items()
        if _text(application["status"]) != "DELETING"
    }


def _deployment(seen: Mapping[str, Any]) -> DeploymentSeen:
    replicas = seen.get("replicas", ())
    states = [_text(replica["state"]) for replica in replicas]
    running = (each for each, state in zip(replicas, states, strict=True) if state == "RUNNING")
    return DeploymentSeen(
        status=_text(seen["status"]),
        num_running=states.count("RUNNING"),
        num_starting=states.count("STARTING"),
        message=_told(seen.get("message", "")),
        running=tuple(sorted(str(each.get("replica_id", "")) for each in running)),
    )


def deploy(
    app: str,
    deployment: str,
    name: str,
    variant: VariantConfig,
    origin: Origin,
    server: ServerConfig,
) -> None:
    """Ask Serve for the application; it is not there yet when this returns."""
    setup = replica_setup(name, variant, origin, server, Room(is_free_only=True))
    target = bind_replica(setup, variant, DRAIN_S, deployment=deployment)
    serve.run_many(
        [serve.RunTarget(target=target, name=app, route_prefix=None)],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


def delete(app: str) -> None:
    """Ask Serve to drain and remove it; it goes on while this returns."""
    serve.delete(app, _blocking=False)


DRAIN_S = 60.0
"""Longest time a replica gets to finish what it has, as everywhere else."""


def _text(status: Any) -> str:
    # Enums on the way, some of them delivered as their values (Ray 2.60).
    return str(getattr(status, "value", status))


def _told(message: str) -> str:
    """What a person needs of Serve's message: our own error at the end of a traceback, else the
    first line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("cluster.errors.")]
    return ours[-1].partition(": ")[2] if ours else (lines[0] if lines else "")
