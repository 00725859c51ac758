"""The doctor names the cause that the status, pods or events hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.cli.kubernetes import app
from cluster.errors import ConfigError
from cluster.kubernetes.doctor import Seen, diagnose
from cluster.kubernetes.finding import Document


def service(*conditions: Document, generation: int = 2, **status: Any) -> Document:
    return {
        "kind": "RayService",
        "metadata": {"name": "squadron", "generation": generation},
        "status": {"observedGeneration": 2, "conditions": list(conditions), **status},
    }


def pod(**status: Any) -> Document:
    return {"kind": "Pod", "metadata": {"name": "squadron-head"}, "status": status}


READY = {"type": "Ready", "status": "True"}
NOT_READY = {"type": "Ready", "status": "False"}


def test_a_ready_service_has_no_cause() -> None:
    assert diagnose(Seen(service=service(READY))) == []


def test_ready_of_an_older_generation_is_not_ready() -> None:
    (cause,) = diagnose(Seen(service=service(READY, generation=3)))

    assert "generation 2" in cause.message


@pytest.mark.parametrize(
    ("seen", "said", "advice"),
    [
        (
            Seen(
                service=service(
                    {**NOT_READY, "reason": "ValidationFailed", "message": "bad upgradeStrategy"}
                )
            ),
            "bad upgradeStrategy",
            "squadron k8s check",
        ),
        (
            Seen(
                service=service(NOT_READY),
                pods=[
                    pod(
                        conditions=[
                            {
                                "type": "PodScheduled",
                                "status": "False",
                                "message": "0/3 nodes: 3 Insufficient nvidia.com/gpu",
                            }
                        ]
                    )
                ],
            ),
            "Insufficient nvidia.com/gpu",
            "add nodes",
        ),
        (
            Seen(
                service=service(NOT_READY),
                pods=[
                    pod(
                        containerStatuses=[
                            {
                                "name": "ray",
                                "restartCount": 4,
                                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                                "lastState": {"terminated": {"reason": "OOMKilled"}},
                            }
                        ]
                    )
                ],
            ),
            "want of memory, 4 restarts",
            "memory limit",
        ),
        (
            Seen(
                service=service(NOT_READY),
                pods=[
                    pod(
                        initContainerStatuses=[
                            {
                                "name": "wait-gcs-ready",
                                "state": {
                                    "waiting": {"reason": "ErrImagePull", "message": "not found"}
                                },
                            }
                        ]
                    )
                ],
            ),
            "ErrImagePull: not found",
            "pull secret",
        ),
        (
            Seen(
                service=service(
                    NOT_READY,
                    pendingServiceStatus={
                        "applicationStatuses": {
                            "squadron": {
                                "status": "DEPLOY_FAILED",
                                "message": "",
                                "serveDeploymentStatuses": {
                                    "gateway": {"status": "UNHEALTHY", "message": "no model m"},
                                    "variant-a": {"status": "HEALTHY"},
                                },
                            }
                        }
                    },
                )
            ),
            "DEPLOY_FAILED; gateway: no model m",
            "/v2/health/ready",
        ),
    ],
)
def test_the_cause_is_named_with_what_to_do(seen: Seen, said: str, advice: str) -> None:
    (cause,) = diagnose(seen)

    assert said in cause.message
    assert advice in cause.advice


def test_events_are_asked_when_nothing_else_says_why() -> None:
    event = {
        "kind": "Event",
        "type": "Warning",
        "reason": "FailedMount",
        "message": "claim squadron-models not found",
        "involvedObject": {"kind": "Pod", "name": "squadron-worker"},
    }
    (cause,) = diagnose(Seen(service=service(NOT_READY), events=[event]))

    assert cause.object == "Pod/squadron-worker"
    assert cause.message == "FailedMount: claim squadron-models not found"


def test_the_command_reads_a_dump_and_fails_when_it_is_not_ready(tmp_path: Path) -> None:
    file = tmp_path / "dump.json"
    file.write_text(json.dumps({"items": [service(NOT_READY, generation=5)]}))

    done = CliRunner().invoke(app, ["doctor", "--dump", str(file), "--json"])

    assert done.exit_code == 1
    assert json.loads(done.stdout)["ready"] is False
    file.write_text(json.dumps({"items": [service(READY)]}))
    assert CliRunner().invoke(app, ["doctor", "--dump", str(file)]).exit_code == 0


def test_a_part_that_fails_is_told_of_a_service_that_is_ready(tmp_path: Path) -> None:
    """The operator calls it Ready as soon as one pod answers."""
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "name": "ray"}
    pod = {
        "kind": "Pod",
        "metadata": {"name": "squadron-worker-b"},
        "status": {"containerStatuses": [waiting]},
    }
    file = tmp_path / "dump.json"
    file.write_text(json.dumps({"items": [service(READY), pod]}))

    told = CliRunner().invoke(app, ["doctor", "--dump", str(file)])
    machine = CliRunner().invoke(app, ["doctor", "--dump", str(file), "--json"])

    assert told.exit_code == 0
    assert "is Ready, but a part of it is not" in told.stdout
    assert "kubectl logs --previous" in told.stdout
    assert json.loads(machine.stdout)["ready"] is True
    assert [each["object"] for each in json.loads(machine.stdout)["causes"]] == [
        "Pod/squadron-worker-b ray"
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        ("a: [", "not JSON"),
        ("[]", "no list `items`"),
        ('{"items": [1]}', "no list `items`"),
    ],
)
def test_a_dump_that_is_none_is_an_error_in_words(
    content: str | None, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "dump.json"
    if content is not None:
        file.write_text(content)

    done = CliRunner().invoke(app, ["doctor", "--dump", str(file)])

    assert isinstance(done.exception, ConfigError)
    assert told in done.exception.message
    assert str(file) in done.exception.message


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ('0/3 nodes are available: persistentvolumeclaim "squadron-models" not found.', "claim"),
        ("pod has unbound immediate PersistentVolumeClaims.", "claim"),
        ("3 node(s) had untolerated taint {nvidia.com/gpu: present}.", "toleration"),
        ("3 node(s) didn't match Pod's node affinity/selector.", "nodeSelector"),
        ("2 node(s) didn't match pod topology spread constraints.", "too few nodes"),
        (
            "1 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint {a: b}.",
            "no node has room",
        ),
    ],
)
def test_a_pod_without_a_node_is_told_what_it_lacks(message: str, advice: str) -> None:
    waits = {"type": "PodScheduled", "status": "False", "message": message}

    (cause,) = diagnose(Seen(service=service(NOT_READY), pods=[pod(conditions=[waits])]))

    assert advice in cause.advice


def test_a_pod_that_waits_for_a_secret_is_told_from_its_events() -> None:
    making = {"name": "ray", "state": {"waiting": {"reason": "ContainerCreating"}}}
    failed = {
        "kind": "Event",
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'MountVolume.SetUp failed for volume "api-keys": secret "keys" not found',
        "involvedObject": {"kind": "Pod", "name": "squadron-head"},
    }
    other = {**failed, "involvedObject": {"kind": "Pod", "name": "other"}}
    pods = [pod(containerStatuses=[making])]

    (cause,) = diagnose(Seen(service=service(NOT_READY), pods=pods, events=[failed, other]))

    assert cause.object == "Pod/squadron-head"
    assert 'secret "keys" not found' in cause.message
    assert diagnose(Seen(service=service(READY), pods=pods, events=[other])) == []
