from __future__ import annotations

import pytest

from cluster.control.reconcile import DeploymentSeen, Snapshot, reconcile
from cluster.models import ModelState
from tests.cluster.routing.test_table import table


def seen(running: int = 0, starting: int = 0, status: str = "HEALTHY") -> DeploymentSeen:
    return DeploymentSeen(status=status, num_running=running, num_starting=starting)


@pytest.mark.parametrize(
    ("observed", "state", "reason"),
    [
        (seen(running=1), "READY", ""),
        (seen(running=1, status="UNHEALTHY"), "READY", ""),
        (seen(starting=2, status="UPDATING"), "LOADING", "2 replicas are starting"),
        (
            seen(status="UNHEALTHY"),
            "LOADING",
            "its replicas died; replacements are on their way",
        ),
        (seen(status="DEPLOY_FAILED"), "UNAVAILABLE", "DEPLOY_FAILED"),
    ],
)
def test_a_variant_is_as_ready_as_its_replicas(
    observed: DeploymentSeen, state: ModelState, reason: str
) -> None:
    snapshot = Snapshot(table=table(), deployments={"variant-a": observed})

    (action,) = reconcile(snapshot, next_version=9)

    assert action.table.version == 9
    assert action.table.state_of("a") == (state, reason)
    assert action.reasons[0].startswith("a: LOADING -> ")


def test_nothing_new_publishes_nothing() -> None:
    assert reconcile(Snapshot(table=table(), deployments={}), next_version=9) == ()


def test_what_cannot_be_served_here_stays_unavailable_whatever_is_seen() -> None:
    snapshot = Snapshot(
        table=table(b_unavailable="not installed"), deployments={"variant-b": seen(running=1)}
    )

    assert reconcile(snapshot, next_version=9) == ()
