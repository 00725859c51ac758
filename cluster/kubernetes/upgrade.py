"""What applying a changed RayService would do: nothing, a change in place, or a second cluster.

Source: KubeRay v1.7.0 hashes `rayClusterConfig` after muting the fields below; another hash under
`NewCluster` starts a whole new cluster beside the old one until traffic switches.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from cluster.kubernetes.duration import StartTimes, in_place_s, second_cluster_s
from cluster.kubernetes.finding import Document, groups_of
from cluster.kubernetes.pods.quantity import is_quantity, quantity

Effect = Literal["none", "in-place", "new-cluster", "ignored", "suspended", "another-service"]

_USUAL = StartTimes()
_MUTED_IN_GROUP = ("replicas", "minReplicas", "maxReplicas", "scaleStrategy", "suspend")
_DEFAULTS_IN_GROUP = {
    "replicas": 0,
    "minReplicas": 0,
    "maxReplicas": 2**31 - 1,
    "numOfHosts": 1,
    "priority": 0,
}
_MUTED_IN_POD = ("tolerations", "schedulingGates")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradePrediction:
    """`extra_gpus` and `extra_pods`: what runs beside the old cluster while both are there, for
    about `duration_s`; `duration` says what that is made of. `reasons` names the paths that decided
    it."""

    effect: Effect
    extra_gpus: int
    extra_pods: int
    reasons: tuple[str, ...]
    duration_s: float = 0.0
    duration: str = ""


def predict_upgrade(old: Document, new: Document, times: StartTimes = _USUAL) -> UpgradePrediction:
    """Of one RayService, before and after; one of them may come from a server, with the CRD's
    defaults filled in."""
    special = _not_an_upgrade(old, new)
    if special is not None:
        return special
    old, new = _filled(old), _filled(new)
    before, after = _hashed(old), _hashed(new)
    old_groups, new_groups = before["workerGroupSpecs"], after["workerGroupSpecs"]
    kept = {**after, "workerGroupSpecs": new_groups[: len(old_groups)]}
    changes = _differences(before, kept, "/spec/rayClusterConfig")
    appended = [str(each.get("groupName")) for each in new_groups[len(old_groups) :]]
    if changes:
        strategy = (new["spec"].get("upgradeStrategy") or {}).get("type", "NewCluster")
        if strategy == "None":
            reasons = ("upgradeStrategy None: nothing happens until re-created", *changes)
            return UpgradePrediction(effect="ignored", extra_gpus=0, extra_pods=0, reasons=reasons)
        pods, gpus = _needs(new)
        duration_s, duration = second_cluster_s(new, times)
        return UpgradePrediction(
            effect="new-cluster",
            extra_gpus=gpus,
            extra_pods=pods,
            reasons=tuple(changes),
            duration_s=duration_s,
            duration=duration,
        )
    changed = _differences(old["spec"], {**new["spec"]}, "/spec")
    reasons = (*changed, *(f"group {name!r} is appended" for name in appended))
    effect: Effect = "in-place" if reasons else "none"
    rolls = any(change.startswith("/spec/serveConfigV2") for change in changed)
    duration_s, duration = in_place_s(new, times) if rolls else (0.0, "")
    return UpgradePrediction(
        effect=effect,
        extra_gpus=0,
        extra_pods=0,
        reasons=reasons,
        duration_s=duration_s,
        duration=duration,
    )


def _not_an_upgrade(old: Document, new: Document) -> UpgradePrediction | None:
    """Another name is another RayService; a suspended one has no pods, whatever else changes."""
    for key in ("name", "namespace"):
        before, after = ((each.get("metadata") or {}).get(key) for each in (old, new))
        if before is not None and after is not None and before != after:
            told = f"/metadata/{key}: {after!r} runs beside {before!r} until that is deleted"
            return _whole(new, "another-service", told)
    was, shall_be = ((each.get("spec") or {}).get("suspend") is True for each in (old, new))
    if shall_be:
        told = "/spec/suspend: every pod is deleted, and nobody served until it is false"
        return UpgradePrediction(
            effect="none" if was else "suspended", extra_gpus=0, extra_pods=0, reasons=(told,)
        )
    if was:
        return _whole(new, "new-cluster", "/spec/suspend: there is no cluster yet")
    return None


def _whole(new: Document, effect: Effect, reason: str) -> UpgradePrediction:
    pods, gpus = _needs(new)
    return UpgradePrediction(effect=effect, extra_gpus=gpus, extra_pods=pods, reasons=(reason,))


def _needs(new: Document) -> tuple[int, int]:
    """Pods and GPUs of a whole cluster as it begins."""
    workers = [group for group in groups_of(new) if not group.is_head]
    pods = sum(_size(group.spec) for group in workers) + 1
    return pods, sum(_size(group.spec) * _gpus(group.container) for group in workers)


def _hashed(service: Document) -> Document:
    """The cluster's part as the operator hashes it."""
    cluster = copy.deepcopy((service.get("spec") or {}).get("rayClusterConfig") or {})
    cluster.pop("suspend", None)
    cluster.pop("upgradeStrategy", None)
    cluster.setdefault("workerGroupSpecs", [])
    for group in [cluster.get("headGroupSpec") or {}, *cluster["workerGroupSpecs"]]:
        for name in _MUTED_IN_GROUP:
            group.pop(name, None)
        pod = (group.get("template") or {}).get("spec") or {}
        for name in _MUTED_IN_POD:
            pod.pop(name, None)
    return cluster


def _filled(service: Document) -> Document:
    """As a server holds it: with the CRD's defaults, as far as a diff meets them."""
    filled = copy.deepcopy(service)
    spec = filled.setdefault("spec", {})
    options = (spec.get("upgradeStrategy") or {}).get("clusterUpgradeOptions")
    if options is not None:
        options.setdefault("maxSurgePercent", 100)
    cluster = spec.setdefault("rayClusterConfig", {})
    head = cluster.get("headGroupSpec") or {}
    services = [spec.get("serveService"), head.get("headService")]
    _fill_ports([((each or {}).get("spec") or {}) for each in services])
    groups = cluster.get("workerGroupSpecs") or []
    for group in groups:
        for name, usual in _DEFAULTS_IN_GROUP.items():
            group.setdefault(name, usual)
    if cluster.get("networkPolicy") is not None:
        cluster["networkPolicy"].setdefault("mode", "DenyAll")
    for group in (head, *groups):
        pod = (group.get("template") or {}).get("spec") or {}
        kinds = ("containers", "initContainers", "ephemeralContainers")
        containers = [each for kind in kinds for each in pod.get(kind) or []]
        _fill_ports(containers)
        for container in containers:
            _canonical(container)
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                if "grpc" in (container.get(probe) or {}):
                    container[probe]["grpc"].setdefault("service", "")
    return filled


def _canonical(container: Document) -> None:
    """`1024Mi` and `1Gi`, `2` and `"2"` are one quantity to the operator's hash."""
    for kind in ("limits", "requests"):
        given = (container.get("resources") or {}).get(kind) or {}
        for name, amount in given.items():
            if is_quantity(amount):
                given[name] = quantity(amount)


def _fill_ports(owners: Iterable[Document]) -> None:
    for owner in owners:
        for port in owner.get("ports") or []:
            port.setdefault("protocol", "TCP")


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in sorted(old.keys() | new.keys()):
            found += _differences(old.get(key), new.get(key), f"{path}/{key}")
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            change
            for index, pair in enumerate(zip(old, new, strict=True))
            for change in _differences(*pair, f"{path}/{index}")
        ]
    return [] if old == new else [path]


def _size(group: Document) -> int:
    """Pods of a group as the operator begins it: within its bounds."""
    number = max(int(group.get("replicas") or 0), int(group.get("minReplicas") or 0))
    return number * int(group.get("numOfHosts") or 1)


def _gpus(container: Document) -> int:
    limits = (container.get("resources") or {}).get("limits") or {}
    return int(limits.get("nvidia.com/gpu", 0))
