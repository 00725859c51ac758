"""What is allowed and still goes wrong: draining, probes, versions, access."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import yaml

from cluster.kubernetes.finding import Document, Finding, Group, groups_of

DRAIN_VARIABLE = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
PROXY_DRAIN_S = 30
"""A draining proxy of Ray Serve stays so long: RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S, Ray 2.60."""
MARGIN_S = 15
GRACE_DEFAULT_S = 30
DRAIN_DEFAULT_S = 30


def check_policies(service: Document) -> list[Finding]:
    """Of one RayService."""
    return [finding for rule in _RULES for finding in rule(service)]


def _groups(service: Document) -> list[Group]:
    """Those that run something: for the others the operator's rules have their own finding."""
    return [group for group in groups_of(service) if group.pod.get("containers")]


def _drain(service: Document) -> Iterator[Finding]:
    """Kubernetes kills after the grace period; preStop and Ray's drain must fit into it."""
    for group in _groups(service):
        pod = group.pod
        grace_s = int(pod.get("terminationGracePeriodSeconds", GRACE_DEFAULT_S))
        drain_s = float(group.env().get(DRAIN_VARIABLE) or DRAIN_DEFAULT_S)
        sleep_s = _sleep_s(group.container)
        if grace_s < sleep_s + drain_s + MARGIN_S:
            yield Finding(
                rule="drain-grace",
                path=f"{group.path}/template/spec/terminationGracePeriodSeconds",
                message=f"{grace_s} s is less than preStop {sleep_s:g} + drain {drain_s:g} "
                f"({DRAIN_VARIABLE}) + {MARGIN_S}: requests are cut off",
            )
        if drain_s <= PROXY_DRAIN_S:
            yield Finding(
                rule="drain-too-short",
                path=f"{group.path}/template/spec/containers/0/env",
                message=f"{DRAIN_VARIABLE} {drain_s:g} must be above {PROXY_DRAIN_S}: a draining "
                "proxy of Serve stays that long",
            )


def _sleep_s(container: Document) -> float:
    stop = ((container.get("lifecycle") or {}).get("preStop")) or {}
    return float((stop.get("sleep") or {}).get("seconds", 0))


def _ray_stop(service: Document) -> Iterator[Finding]:
    for group in _groups(service):
        stop = ((group.container.get("lifecycle") or {}).get("preStop")) or {}
        if "ray stop" in str(stop.get("exec", "")):
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


def _secrets(service: Document) -> Iterator[Finding]:
    for group in _groups(service):
        for name, value in group.env().items():
            if value and any(word in name.upper() for word in ("PASSWORD", "TOKEN", "SECRET")):
                yield Finding(
                    rule="inline-secret",
                    path=f"{group.path}/template/spec/containers/0/env",
                    message=f"{name} stands here in plain text; use valueFrom.secretKeyRef",
                )


def _memory(service: Document) -> Iterator[Finding]:
    for group in _groups(service):
        resources = group.container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("memory", "nvidia.com/gpu"):
            if name in limits and requests.get(name, limits[name]) != limits[name]:
                yield Finding(
                    rule="requests-limits",
                    path=f"{group.path}/template/spec/containers/0/resources/requests/{name}",
                    message=f"request {requests[name]} must equal the limit {limits[name]}",
                )
        if "memory" not in limits:
            yield Finding(
                rule="memory-limit",
                path=f"{group.path}/template/spec/containers/0/resources/limits/memory",
                message="is missing: Ray would take the node's memory for its own",
            )


def _serve(service: Document) -> Iterator[Finding]:
    text = (service.get("spec") or {}).get("serveConfigV2")
    path = "/spec/serveConfigV2"
    try:
        config: Any = yaml.safe_load(text or "")
    except yaml.YAMLError as error:
        yield Finding(rule="serve-yaml", path=path, message=f"not valid YAML: {error}")
        return
    if not isinstance(config, dict) or not config.get("applications"):
        yield Finding(rule="serve-yaml", path=path, message="has no `applications`")
        return
    if config.get("proxy_location") == "HeadOnly":
        yield Finding(
            rule="serve-proxies",
            path=path,
            message="proxy_location HeadOnly leaves every worker NotReady; EveryNode",
        )


_RULES: tuple[Callable[[Document], Iterator[Finding]], ...] = (
    _drain,
    _ray_stop,
    _version,
    _auth,
    _secrets,
    _memory,
    _serve,
)
