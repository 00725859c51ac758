"""The Serve applications of models that can be loaded and unloaded: seen, deployed, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve

from actors.deployments import bind_replica, replica_setup
from actors.sharding.room import Room
from actors.variant_facts import Origin
from cluster.config.server import ServerConfig
from cluster.config.variant import VariantConfig
from cluster.control.reconcile import DeploymentSeen

Seen = Mapping[str, Mapping[str, DeploymentSeen]]
"""Application -> deployment -> what Serve says of it. Those on their way out are left out."""


def observe() -> Seen:
    return {
        name: {
            deployment: DeploymentSeen(
                status=str(seen.status.value),
                num_running=_count(seen.replica_states, "RUNNING"),
                num_starting=_count(seen.replica_states, "STARTING"),
                message=_told(seen.message),
            )
            for deployment, seen in application.deployments.items()
        }
        for name, application in serve.status().applications.items()
        if str(application.status.value) != "DELETING"
    }


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


def _count(states: Mapping[Any, int], wanted: str) -> int:
    # Typed as an enum, delivered as its values (Ray 2.60).
    return sum(n for state, n in states.items() if getattr(state, "value", state) == wanted)


def _told(message: str) -> str:
    """What a person needs of Serve's message: our own error at the end of a traceback, else the
    first line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("cluster.errors.")]
    return ours[-1].partition(": ")[2] if ours else (lines[0] if lines else "")
