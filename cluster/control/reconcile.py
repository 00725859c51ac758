"""One control pass: what was observed in, the table to publish and its reasons out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.models import ModelState
from cluster.routing.table import RoutingTable, VariantRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSeen:
    """One Serve deployment as Serve reports it; counts are replicas."""

    status: str
    num_running: int
    num_starting: int
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the controller saw. `deployments` maps a deployment's name to what Serve says of it."""

    table: RoutingTable
    deployments: Mapping[str, DeploymentSeen]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishTable:
    """Send every door this table."""

    table: RoutingTable
    reasons: tuple[str, ...]


def reconcile(snapshot: Snapshot, *, next_version: int) -> tuple[PublishTable, ...]:
    """The actions that bring the doors' knowledge in line with what runs; none when it is."""
    states: dict[str, tuple[ModelState, str]] = {}
    reasons: list[str] = []
    for name, route in snapshot.table.routes.items():
        if not isinstance(route, VariantRoute) or route.facts.unavailable:
            continue
        state, reason = judge(route, snapshot.deployments.get(route.deployment))
        if (state, reason) != (route.state, route.reason):
            states[name] = (state, reason)
            reasons.append(f"{name}: {route.state} -> {state}" + (f" ({reason})" if reason else ""))
    if not states:
        return ()
    table = snapshot.table.with_states(states, version=next_version)
    return (PublishTable(table=table, reasons=tuple(reasons)),)


def judge(route: VariantRoute, seen: DeploymentSeen | None) -> tuple[ModelState, str]:
    """A variant serves as long as one replica runs, whatever Serve is doing to the others."""
    if seen is None:
        return "LOADING", "waiting for its first replica"
    if seen.num_running > 0:
        return "READY", ""
    if route.num_replicas == 0:
        return "UNAVAILABLE", "scaled to zero"
    if seen.status == "DEPLOY_FAILED":
        return "UNAVAILABLE", seen.message or seen.status
    if seen.status == "UNHEALTHY":
        # Serve is replacing what died: doors hold requests instead of refusing them.
        return "LOADING", "its replicas died; replacements are on their way"
    return "LOADING", f"{seen.num_starting} replicas are starting"
