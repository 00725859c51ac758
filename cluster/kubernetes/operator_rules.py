"""What KubeRay's operator refuses although the CRD allows it.

Source: KubeRay v1.7.0, ray-operator/controllers/ray/utils/validation.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from cluster.kubernetes.finding import Document, Finding, groups_of

UPGRADE_TYPES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
MAX_NAME = 47
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_RAY_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")


def check_operator_rules(service: Document) -> list[Finding]:
    """Of one RayService."""
    return [finding for rule in _RULES for finding in rule(service)]


def _name(service: Document) -> Iterator[Finding]:
    name = str((service.get("metadata") or {}).get("name", ""))
    if len(name) > MAX_NAME or not _DNS_1035.fullmatch(name):
        yield Finding(
            rule="operator-name",
            path="/metadata/name",
            message=f"{name!r}: at most {MAX_NAME} of a-z, 0-9 and '-', a letter first",
        )


def _upgrade(service: Document) -> Iterator[Finding]:
    spec = service.get("spec") or {}
    strategy = spec.get("upgradeStrategy") or {}
    kind = strategy.get("type", "NewCluster")
    if kind not in UPGRADE_TYPES:
        yield Finding(
            rule="operator-upgrade-type",
            path="/spec/upgradeStrategy/type",
            message=f"{kind!r}; allowed: {', '.join(UPGRADE_TYPES)}",
        )
    if kind != "NewClusterWithIncrementalUpgrade":
        return
    cluster = spec.get("rayClusterConfig") or {}
    if not cluster.get("enableInTreeAutoscaling"):
        yield Finding(
            rule="operator-incremental-autoscaler",
            path="/spec/rayClusterConfig/enableInTreeAutoscaling",
            message="must be true for NewClusterWithIncrementalUpgrade",
        )
    options = strategy.get("clusterUpgradeOptions") or {}
    step, surge = options.get("stepSizePercent", 0), options.get("maxSurgePercent", 100)
    if not 0 < step <= surge <= 100:
        yield Finding(
            rule="operator-incremental-step",
            path="/spec/upgradeStrategy/clusterUpgradeOptions/stepSizePercent",
            message=f"stepSizePercent {step}: from 1 to maxSurgePercent {surge}, that at most 100",
        )


def _replicas(service: Document) -> Iterator[Finding]:
    names = []
    for group in groups_of(service):
        if group.is_head:
            continue
        names.append(group.name)
        least, most = group.spec.get("minReplicas", 0), group.spec.get("maxReplicas", 2**31 - 1)
        if isinstance(least, int) and isinstance(most, int) and not 0 <= least <= most:
            yield Finding(
                rule="operator-replicas",
                path=f"{group.path}/minReplicas",
                message=f"minReplicas {least} must be from 0 to maxReplicas {most}",
            )
    for name in sorted({each for each in names if names.count(each) > 1}):
        yield Finding(
            rule="group-name",
            path="/spec/rayClusterConfig/workerGroupSpecs",
            message=f"groupName {name!r} appears {names.count(name)} times; nothing else notices",
        )


def _containers(service: Document) -> Iterator[Finding]:
    for group in groups_of(service):
        if not group.pod.get("containers"):
            yield Finding(
                rule="operator-containers",
                path=f"{group.path}/template/spec/containers",
                message=f"group {group.name!r} has no container; the first one is Ray's",
            )


def _start_parameters(service: Document) -> Iterator[Finding]:
    for group in groups_of(service):
        given = group.spec.get("rayStartParams") or {}
        twice = [name for name in _RAY_RESOURCES if name in given]
        if twice and group.spec.get("resources"):
            yield Finding(
                rule="operator-resources-twice",
                path=f"{group.path}/rayStartParams/{twice[0]}",
                message="resources stand in rayStartParams and in `resources`; one of them only",
            )
        if "labels" in given:
            yield Finding(
                rule="operator-start-labels",
                path=f"{group.path}/rayStartParams/labels",
                message="labels belong into the group's own `labels`",
            )


def _fault_tolerance(service: Document) -> Iterator[Finding]:
    cluster = (service.get("spec") or {}).get("rayClusterConfig") or {}
    options = cluster.get("gcsFaultToleranceOptions")
    for group in groups_of(service):
        if not group.is_head:
            continue
        env = group.env()
        forbidden = ("REDIS_PASSWORD", "RAY_REDIS_ADDRESS") if options else ("RAY_REDIS_ADDRESS",)
        for name in forbidden:
            if name in env:
                yield Finding(
                    rule="operator-redis-env",
                    path=f"{group.path}/template/spec/containers/0/env",
                    message=f"{name} is refused; Redis stands in gcsFaultToleranceOptions",
                )


def _auth(service: Document) -> Iterator[Finding]:
    cluster = (service.get("spec") or {}).get("rayClusterConfig") or {}
    mode = (cluster.get("authOptions") or {}).get("mode")
    version = str(cluster.get("rayVersion", ""))
    found = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?", version)
    if mode == "token" and (found is None or (int(found[1]), int(found[2])) < (2, 52)):
        yield Finding(
            rule="operator-token-auth",
            path="/spec/rayClusterConfig/rayVersion",
            message=f"authOptions.mode token needs rayVersion 2.52 or later, got {version!r}",
        )


_RULES: tuple[Callable[[Document], Iterator[Finding]], ...] = (
    _name,
    _upgrade,
    _replicas,
    _containers,
    _start_parameters,
    _fault_tolerance,
    _auth,
)
