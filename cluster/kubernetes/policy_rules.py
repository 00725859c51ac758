"""What is allowed and still goes wrong: draining, probes, versions, access."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from cluster.kubernetes.finding import Document, Finding, Group, groups_of
from cluster.kubernetes.guard import guarded
from cluster.kubernetes.pods.quantity import is_quantity, quantity
from cluster.kubernetes.pods.stopping import grace_s, pre_stop_command, pre_stop_s

DRAIN_VARIABLE = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
AUTH_VARIABLE = "RAY_AUTH_MODE"
PROXY_DRAIN_S = 30
"""A draining proxy of Ray Serve stays so long: RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S, Ray 2.60."""
MARGIN_S = 15
RAY_FOLDER = "/tmp/ray"
ROTATION_VARIABLE = "RAY_ROTATION_MAX_BYTES"
DRAIN_DEFAULT_S = 30


def check_policies(service: Document) -> list[Finding]:
    """Of one RayService."""
    return [
        finding for rule in _RULES for finding in guarded(rule.__name__.strip("_"), rule, service)
    ]


def _groups(service: Document) -> list[Group]:
    """Those that run something: for the others the operator's rules have their own finding."""
    return [group for group in groups_of(service) if group.pod.get("containers")]


def _drain(service: Document) -> Iterator[Finding]:
    """Kubernetes kills after the grace period; preStop and Ray's drain must fit into it."""
    for group in _groups(service):
        whole_s = grace_s(group.pod)
        drain_s = float(group.env().get(DRAIN_VARIABLE) or DRAIN_DEFAULT_S)
        sleep_s = pre_stop_s(group.container)
        # A hook as long as all of it has a finding of its own.
        if sleep_s < whole_s < sleep_s + drain_s + MARGIN_S:
            yield Finding(
                rule="drain-grace",
                path=f"{group.path}/template/spec/terminationGracePeriodSeconds",
                message=f"{whole_s:g} s is less than preStop {sleep_s:g} + drain {drain_s:g} "
                f"({DRAIN_VARIABLE}) + {MARGIN_S}: requests are cut off",
            )
        if drain_s <= PROXY_DRAIN_S:
            yield Finding(
                rule="drain-too-short",
                path=f"{group.path}/template/spec/containers/0/env",
                message=f"{DRAIN_VARIABLE} {drain_s:g} must be above {PROXY_DRAIN_S}: a draining "
                "proxy of Serve stays that long",
            )


def _ray_stop(service: Document) -> Iterator[Finding]:
    for group in _groups(service):
        if re.search(r"\bray\s+stop\b", pre_stop_command(group.container)):
            yield Finding(
                rule="ray-stop",
                path=f"{group.path}/template/spec/containers/0/lifecycle/preStop",
                message="`ray stop` runs before SIGTERM and kills every replica at once; sleep",
            )


def _version(service: Document) -> Iterator[Finding]:
    cluster = (service.get("spec") or {}).get("rayClusterConfig") or {}
    version = str(cluster.get("rayVersion", ""))
    if not version:
        yield Finding(
            rule="ray-version",
            path="/spec/rayClusterConfig/rayVersion",
            message="is missing: the operator would choose the probes of an old Ray",
        )
    images = {group.container.get("image") for group in _groups(service)}
    if len(images) > 1:
        yield Finding(
            rule="one-image",
            path="/spec/rayClusterConfig",
            message=f"head and workers must run the same image, got {sorted(map(str, images))}",
        )


def _auth(service: Document) -> Iterator[Finding]:
    cluster = (service.get("spec") or {}).get("rayClusterConfig") or {}
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        yield Finding(
            rule="token-auth",
            path="/spec/rayClusterConfig/authOptions/mode",
            message="must be `token`: Ray's dashboard and jobs port run code for whoever asks",
        )
    for group in _groups(service):
        mode = group.env().get(AUTH_VARIABLE)
        if mode is not None and mode != "token":
            yield Finding(
                rule="token-auth",
                path=f"{group.path}/template/spec/containers/0/env",
                message=f"{AUTH_VARIABLE}={mode!r} is against authOptions: Ray would run code for "
                "whoever asks, or not start; allowed: left out, the operator sets it",
            )


def _group_names(service: Document) -> Iterator[Finding]:
    """No key of the CRD, and not looked at by the operator."""
    names = [group.name for group in groups_of(service) if not group.is_head]
    for name in sorted({each for each in names if names.count(each) > 1}):
        yield Finding(
            rule="group-name",
            path="/spec/rayClusterConfig/workerGroupSpecs",
            message=f"groupName {name!r} appears {names.count(name)} times; nothing else notices",
        )


def _growth(service: Document) -> Iterator[Finding]:
    """The CRD's default is 2147483647."""
    cluster = (service.get("spec") or {}).get("rayClusterConfig") or {}
    if cluster.get("enableInTreeAutoscaling") is not True:
        return
    for group in groups_of(service):
        if not group.is_head and group.spec.get("maxReplicas") is None:
            yield Finding(
                rule="max-replicas",
                path=f"{group.path}/maxReplicas",
                message="is missing: Ray's autoscaler may add nodes without end; allowed: a number",
            )


def _log_files(service: Document) -> Iterator[Finding]:
    """Ray 2.60 rotates what workers say only where the variable is set (default_worker.py); a pod
    whose volume is above its limit is evicted, models and all."""
    for group in _groups(service):
        limited = {
            volume.get("name"): volume["emptyDir"]["sizeLimit"]
            for volume in group.pod.get("volumes") or []
            if (volume.get("emptyDir") or {}).get("sizeLimit")
        }
        for mount in group.container.get("volumeMounts") or []:
            is_rays = str(mount.get("mountPath", "")).rstrip("/") == RAY_FOLDER
            limit = limited.get(mount.get("name"))
            if is_rays and limit is not None and not group.env().get(ROTATION_VARIABLE):
                yield Finding(
                    rule="log-rotation",
                    path=f"{group.path}/template/spec/containers/0/env",
                    message=f"{ROTATION_VARIABLE} is missing: log lines grow without end in a "
                    f"volume of {limit}, and then the pod is evicted; allowed: bytes of one file",
                )


def _memory(service: Document) -> Iterator[Finding]:
    for group in _groups(service):
        resources = group.container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        at = f"{group.path}/template/spec/containers/0/resources"
        limit = limits.get("memory")
        asked = requests.get("memory", limit)
        if limit is None:
            yield Finding(
                rule="memory-limit",
                path=f"{at}/limits/memory",
                message="is missing: Ray would take the node's memory for its own",
            )
        elif is_quantity(limit) and is_quantity(asked) and quantity(asked) < quantity(limit):
            yield Finding(
                rule="requests-limits",
                path=f"{at}/requests/memory",
                message=f"request {asked} must equal the limit {limit}: Ray counts on the limit",
            )


_RULES: tuple[Callable[[Document], Iterator[Finding]], ...] = (
    _drain,
    _ray_stop,
    _version,
    _auth,
    _group_names,
    _growth,
    _log_files,
    _memory,
)
