"""What an API server refuses in a pod and no schema knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from cluster.kubernetes.finding import Document, Finding, services_in
from cluster.kubernetes.pods import PodTemplate, pods_of
from cluster.kubernetes.quantity import quantity

LAST_PORT = 65535
ENFORCE = "pod-security.kubernetes.io/enforce"
RESTRICTED = "pod-restricted"


def check_pods(documents: Sequence[Document]) -> list[Finding]:
    """Of every pod template in `documents`; of the level `restricted` where their namespace
    enforces it."""
    rules = (*_RULES, _restricted) if _enforces_restricted(documents) else _RULES
    found = [found for pod in pods_of(documents) for rule in rules for found in rule(pod)]
    if _enforces_restricted(documents):
        found += [each for one in services_in(list(documents)) for each in _autoscaler(one)]
    return found


def _enforces_restricted(documents: Sequence[Document]) -> bool:
    return any(
        ((each.get("metadata") or {}).get("labels") or {}).get(ENFORCE) == "restricted"
        for each in documents
        if each.get("kind") == "Namespace"
    )


def _restricted(pod: PodTemplate) -> Iterator[Finding]:
    for index, volume in enumerate(pod.spec.get("volumes") or []):
        if "hostPath" in volume:
            yield Finding(
                rule=RESTRICTED,
                path=f"{pod.path}/volumes/{index}/hostPath",
                message=f"{pod.owner}: the namespace enforces `restricted`, which admits no "
                "hostPath; allowed: a claim of a PersistentVolume with that path",
            )
    common = pod.spec.get("securityContext") or {}
    for path, container in pod.containers():
        own = container.get("securityContext") or {}
        both = {**common, **own}
        lacks = _lacks(own)
        if both.get("runAsNonRoot") is not True:
            lacks.append("runAsNonRoot: true")
        if (both.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            lacks.append("seccompProfile: {type: RuntimeDefault}")
        if lacks:
            yield _unsafe(f"{path}/securityContext", pod.owner, lacks)


def _autoscaler(service: Document) -> Iterator[Finding]:
    """Its container is the operator's, in the head's pod; nothing is set there that is not said
    here."""
    cluster = (service.get("spec") or {}).get("rayClusterConfig") or {}
    lacks = _lacks((cluster.get("autoscalerOptions") or {}).get("securityContext") or {})
    if cluster.get("enableInTreeAutoscaling") and lacks:
        path = "/spec/rayClusterConfig/autoscalerOptions/securityContext"
        yield _unsafe(path, "the autoscaler's container", lacks)


def _lacks(context: Document) -> list[str]:
    """Of what only a container can say."""
    lacks = []
    if context.get("allowPrivilegeEscalation") is not False:
        lacks.append("allowPrivilegeEscalation: false")
    if "ALL" not in ((context.get("capabilities") or {}).get("drop") or []):
        lacks.append("capabilities: {drop: [ALL]}")
    return lacks


def _unsafe(path: str, owner: str, lacks: Sequence[str]) -> Finding:
    return Finding(
        rule=RESTRICTED,
        path=path,
        message=f"{owner}: the namespace enforces `restricted`, missing: {', '.join(lacks)}",
    )


def _limits(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        resources = container.get("resources") or {}
        limits = resources.get("limits") or {}
        for name, asked in (resources.get("requests") or {}).items():
            if name in limits and quantity(asked) > quantity(limits[name]):
                yield Finding(
                    rule="pod-request-above-limit",
                    path=f"{path}/resources/requests/{name}",
                    message=f"request {asked} is above the limit {limits[name]}",
                )


def _mounts(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for index, mount in enumerate(container.get("volumeMounts") or []):
            if mount.get("name") not in pod.volumes:
                yield Finding(
                    rule="pod-unknown-volume",
                    path=f"{path}/volumeMounts/{index}/name",
                    message=f"no volume {mount.get('name')!r}; allowed: {sorted(pod.volumes)}",
                )


def _ports(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for index, port in enumerate(container.get("ports") or []):
            number = port.get("containerPort")
            if not isinstance(number, int) or not 0 < number <= LAST_PORT:
                yield Finding(
                    rule="pod-port",
                    path=f"{path}/ports/{index}/containerPort",
                    message=f"{number!r} is no port; allowed: 1 to {LAST_PORT}",
                )


def _signals(pod: PodTemplate) -> Iterator[Finding]:
    """A pipe's last command is a child whatever it says: SIGTERM ends at the shell."""
    for path, container in pod.containers():
        said = [str(each) for key in ("command", "args") for each in container.get(key) or []]
        if any(re.search(r"\|\s*exec\b", each) for each in said):
            yield Finding(
                rule="pod-exec-in-pipe",
                path=f"{path}/args",
                message="`| exec` replaces no shell: the program never gets SIGTERM; allowed: a "
                "file instead of the pipe",
            )


_RULES: tuple[Callable[[PodTemplate], Iterator[Finding]], ...] = (
    _limits,
    _mounts,
    _ports,
    _signals,
)
