"""What Serve says of its applications, as its REST interface delivers it."""

from __future__ import annotations

from ray.serve.schema import DeploymentStatus, ReplicaState

from actors.repository.apps import seen_of
from cluster.control.reconcile import DeploymentSeen

FAILED = """The deployment failed to start 3 times in a row.
Traceback (most recent call last):
  File "replica.py", line 1, in start
cluster.errors.ConfigError: model 'm': no such file
"""


def test_replicas_are_counted_by_state_and_our_own_error_is_told() -> None:
    details = {
        "controller_info": {},
        "applications": {
            "gone": {"status": "DELETING", "deployments": {"x": {"status": "HEALTHY"}}},
            "empty": {"status": "DEPLOYING"},
            "app": {
                "status": "RUNNING",
                "deployments": {
                    "a": {
                        "status": DeploymentStatus.HEALTHY,
                        "message": "",
                        "replicas": [
                            {"state": ReplicaState.RUNNING, "replica_id": "r2"},
                            {"state": "RUNNING", "replica_id": "r1"},
                            {"state": ReplicaState.STARTING},
                            {"state": ReplicaState.STOPPING},
                        ],
                    },
                    "b": {"status": "DEPLOY_FAILED", "message": FAILED},
                },
            },
        },
    }

    assert seen_of(details) == {
        "empty": {},
        "app": {
            "a": DeploymentSeen(
                status="HEALTHY",
                num_running=2,
                num_starting=1,
                message="",
                running=("r1", "r2"),
            ),
            "b": DeploymentSeen(
                status="DEPLOY_FAILED",
                num_running=0,
                num_starting=0,
                message="model 'm': no such file",
            ),
        },
    }


def test_a_cluster_without_applications_has_none() -> None:
    assert seen_of({}) == {}
