"""What is taken and runs, and hurts on the day when something goes: warnings, but for a shell that
keeps SIGTERM to itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from cluster.kubernetes.finding import Document, Finding, Group, groups_of
from cluster.kubernetes.guard import guarded

SPOT = {
    "cloud.google.com/gke-spot": "true",
    "cloud.google.com/gke-provisioning": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
"""Labels of machines that may be taken away, as the clouds and Karpenter name them."""
_START = re.compile(r"(?<!exec )\bray start\b")


def check_risks(service: Document) -> list[Finding]:
    """Of one RayService."""
    return [
        finding for rule in _RULES for finding in guarded(rule.__name__.strip("_"), rule, service)
    ]


def _warning(rule: str, path: str, message: str, *, source: str = "") -> Finding:
    return Finding(rule=rule, path=path, message=message, severity="warning", source=source)


def _groups(service: Document) -> Iterator[tuple[Group, str]]:
    """With the path of their pods' spec."""
    for group in groups_of(service):
        if group.pod.get("containers"):
            yield group, f"{group.path}/template/spec"


def _pause(service: Document) -> Iterator[Finding]:
    """Endpoints are taken away beside SIGTERM, not before it."""
    for group, at in _groups(service):
        # A hook of any form is looked at by the rules about hooks.
        if not group.is_head and not (group.container.get("lifecycle") or {}):
            yield _warning(
                "drain-pause",
                f"{at}/containers/0/lifecycle/preStop",
                "is missing: new connections are still sent to a door that goes already; allowed: "
                "{sleep: {seconds: 10}}, with as much more grace",
            )


def _shell(service: Document) -> Iterator[Finding]:
    """Of images as ours, Debian's, `sh` is dash: it waits for its child and hands on no signal."""
    for group, at in _groups(service):
        words = [*(group.container.get("command") or []), *(group.container.get("args") or [])]
        first = str(words[0]).rpartition("/")[2] if words else ""
        if first in ("sh", "dash") and any(_START.search(str(each)) for each in words[1:]):
            yield Finding(
                rule="shell-keeps-signals",
                path=f"{at}/containers/0/command",
                message=f"{first} starts `ray start` as its child and keeps SIGTERM: nothing is "
                "drained, all is killed at the end of the grace period; allowed: "
                "`exec ray start ... --block`, or no command at all",
            )


def _head_work(service: Document) -> Iterator[Finding]:
    for group, _ in _groups(service):
        given = {
            **(group.spec.get("resources") or {}),
            **(group.spec.get("rayStartParams") or {}),
        }
        if group.is_head and str(given.get("num-cpus", given.get("CPU"))) != "0":
            yield _warning(
                "head-work",
                f"{group.path}/rayStartParams/num-cpus",
                f"{given.get('num-cpus')}: models may be put on the head, and their memory ends "
                'the whole cluster with it; allowed: "0"',
                source="kuberay#4287",
            )


def _head_spot(service: Document) -> Iterator[Finding]:
    for group, at in _groups(service):
        chosen = group.pod.get("nodeSelector") or {}
        for label in sorted(SPOT.keys() & chosen.keys()):
            if group.is_head and str(chosen[label]) == SPOT[label]:
                yield _warning(
                    "head-spot",
                    f"{at}/nodeSelector",
                    f"{label}: {chosen[label]}: the head goes whenever the cloud wants its machine "
                    "back, and with it all control; allowed: machines that stay",
                )


def _state_shared(service: Document) -> Iterator[Finding]:
    cluster = (service.get("spec") or {}).get("rayClusterConfig") or {}
    name = (cluster.get("gcsFaultToleranceOptions") or {}).get("externalStorageNamespace")
    if name:
        yield _warning(
            "state-shared",
            "/spec/rayClusterConfig/gcsFaultToleranceOptions/externalStorageNamespace",
            f"{name!r}: the new cluster of an upgrade would begin with the old one's state; "
            "allowed: left out, then it is the cluster's own",
        )


def _worker_token(service: Document) -> Iterator[Finding]:
    for group, at in _groups(service):
        if not group.is_head and group.pod.get("automountServiceAccountToken") is not False:
            yield _warning(
                "worker-token",
                f"{at}/automountServiceAccountToken",
                "is not false: code of a model could speak to Kubernetes in the pod's name; "
                "workers need no token",
            )


_RULES: tuple[Callable[[Document], Iterator[Finding]], ...] = (
    _pause,
    _shell,
    _head_work,
    _head_spot,
    _state_shared,
    _worker_token,
)
