"""What keeps a RayService from being ready: the cause, read from what Kubernetes says of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.kubernetes.finding import Document

HEALTHY_APPS = frozenset({"RUNNING"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """`object`: what says so. `message`: its own words. `advice`: what to do about it."""

    object: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """`kubectl get -o json` of the service and everything that belongs to it."""

    service: Document
    pods: Sequence[Document] = ()
    events: Sequence[Document] = ()


def diagnose(seen: Seen) -> list[Cause]:
    """Causes, the nearest to the root first. Of a service that is Ready as last changed, what
    hinders a part of it: the operator calls it Ready as soon as one pod answers."""
    if is_ready(seen.service):
        return [*_pods(seen), *_applications(seen, "activeServiceStatus")]
    found = [*_validation(seen), *_pods(seen), *_applications(seen), *_initializing(seen)]
    return found or [*_warnings(seen)] or [_unknown(seen.service)]


def is_ready(service: Document) -> bool:
    """The condition, of this generation: an older one tells of what ran before the change."""
    status = service.get("status") or {}
    generation = (service.get("metadata") or {}).get("generation")
    if status.get("observedGeneration") != generation:
        return False
    return any(
        each.get("type") == "Ready" and each.get("status") == "True"
        for each in status.get("conditions") or []
    )


def _named(document: Document) -> str:
    return f"{document.get('kind', '')}/{(document.get('metadata') or {}).get('name', '')}"


def _validation(seen: Seen) -> Iterator[Cause]:
    for each in (seen.service.get("status") or {}).get("conditions") or []:
        if each.get("type") == "Ready" and each.get("reason") == "ValidationFailed":
            yield Cause(
                object=_named(seen.service),
                message=str(each.get("message", "")),
                advice="the operator refuses the manifest: `squadron k8s check` names the field",
            )


def _pods(seen: Seen) -> Iterator[Cause]:
    for pod in seen.pods:
        status = pod.get("status") or {}
        for each in status.get("conditions") or []:
            if each.get("type") == "PodScheduled" and each.get("status") == "False":
                yield Cause(
                    object=_named(pod),
                    message=str(each.get("message", "")),
                    advice=_where_to_put(str(each.get("message", ""))),
                )
        statuses = [
            *(status.get("initContainerStatuses") or []),
            *(status.get("containerStatuses") or []),
        ]
        for container in statuses:
            yield from _container(pod, container)
        if any(_is_being_made(each) for each in statuses):
            yield from _mounts(pod, seen.events)


_PLACES = (
    (
        "persistentvolumeclaim",
        "its claim is not there, not bound, or in another namespace: `kubectl get pvc`; `squadron "
        "k8s check` lists what must be there already",
    ),
    ("Insufficient", "no node has room: add nodes, or ask for less (`squadron k8s check`)"),
    ("untolerated taint", "nodes keep it off by a taint: a toleration for that key"),
    ("node affinity/selector", "no node has the labels that it asks for: nodeSelector, affinity"),
    ("topology spread", "too few nodes to keep the pods apart: add nodes, or fewer pods"),
)
"""What the scheduler says, the hardest to change first: it lists every node's reason."""


def _where_to_put(message: str) -> str:
    for said, advice in _PLACES:
        if said.lower() in message.lower():
            return advice
    return "no node takes it: its message says why, node by node"


def _is_being_made(container: Document) -> bool:
    waiting = (container.get("state") or {}).get("waiting") or {}
    return waiting.get("reason") in ("ContainerCreating", "PodInitializing")


def _mounts(pod: Document, events: Sequence[Document]) -> Iterator[Cause]:
    """A Secret, ConfigMap or disk that never comes is told by events alone: its pod is being made
    for ever."""
    name = (pod.get("metadata") or {}).get("name")
    about = [
        event
        for event in events
        if event.get("reason") in ("FailedMount", "FailedAttachVolume")
        and (event.get("involvedObject") or {}).get("name") == name
    ]
    if about:
        newest = max(about, key=lambda each: str(each.get("lastTimestamp") or ""))
        yield Cause(
            object=_named(pod),
            message=f"{newest.get('reason')}: {newest.get('message', '')}",
            advice="a Secret, ConfigMap or volume that it mounts is not there, or held by another "
            "node: make it in the same namespace",
        )


_WAITING = {
    "ErrImagePull": "the image cannot be pulled: its name, tag and pull secret",
    "ImagePullBackOff": "the image cannot be pulled: its name, tag and pull secret",
    "InvalidImageName": "the image's name is wrong",
    "CreateContainerConfigError": "a ConfigMap or Secret it names is missing",
    "CrashLoopBackOff": "it ends soon after its start: `kubectl logs --previous`",
}


def _container(pod: Document, container: Document) -> Iterator[Cause]:
    state = container.get("state") or {}
    name = f"{_named(pod)} {container.get('name', '')}"
    waiting = state.get("waiting") or {}
    reason = str(waiting.get("reason", ""))
    ended: dict[str, Any] = (container.get("lastState") or {}).get("terminated") or {}
    ended = state.get("terminated") or ended
    if ended.get("reason") == "OOMKilled":
        yield Cause(
            object=name,
            message=f"ended for want of memory, {container.get('restartCount', 0)} restarts",
            advice="raise its memory limit, or lower models a worker, `memory_limit_mb`, KV memory",
        )
    elif reason in _WAITING:
        yield Cause(
            object=name,
            message=f"{reason}: {waiting.get('message', '')}".rstrip(": "),
            advice=_WAITING[reason],
        )


def _applications(seen: Seen, *asked: str) -> Iterator[Cause]:
    status = seen.service.get("status") or {}
    for which in asked or ("activeServiceStatus", "pendingServiceStatus"):
        applications = (status.get(which) or {}).get("applicationStatuses") or {}
        for name, application in applications.items():
            if application.get("status") in HEALTHY_APPS:
                continue
            told = [str(application.get("message") or application.get("status") or "")]
            told += [
                f"{deployment}: {each.get('message') or each.get('status')}"
                for deployment, each in (application.get("serveDeploymentStatuses") or {}).items()
                if each.get("status") not in ("HEALTHY", None)
            ]
            yield Cause(
                object=f"application {name} ({which.removesuffix('ServiceStatus')} cluster)",
                message="; ".join(each for each in told if each),
                advice="the door says which model is not ready and why: GET /v2/health/ready",
            )


def _initializing(seen: Seen) -> Iterator[Cause]:
    for each in (seen.service.get("status") or {}).get("conditions") or []:
        if each.get("reason") == "InitializingTimeout":
            yield Cause(
                object=_named(seen.service),
                message=str(each.get("message", "")),
                advice="it has given up for good: delete and create it again, with a longer "
                "annotation ray.io/initializing-timeout",
            )


def _warnings(seen: Seen) -> Iterator[Cause]:
    newest = sorted(seen.events, key=lambda each: str(each.get("lastTimestamp") or ""))
    for event in newest[-5:][::-1]:
        if event.get("type") == "Warning":
            about = event.get("involvedObject") or {}
            yield Cause(
                object=f"{about.get('kind', '')}/{about.get('name', '')}",
                message=f"{event.get('reason', '')}: {event.get('message', '')}",
                advice="the newest warnings; nothing that is known stands in conditions or pods",
            )


def _unknown(service: Document) -> Cause:
    status = service.get("status") or {}
    seen, wanted = status.get("observedGeneration"), service.get("metadata", {}).get("generation")
    if seen != wanted:
        return Cause(
            object=_named(service),
            message=f"the operator has seen generation {seen}, the newest is {wanted}",
            advice="is the operator running, and does a NetworkPolicy let it reach port 8265?",
        )
    return Cause(
        object=_named(service),
        message="not Ready, and neither conditions, pods, applications nor events say why",
        advice="does a NetworkPolicy let the operator reach port 8265 of the head?",
    )
