"""Objects that pods name and somebody must have made: claims, Secrets, ConfigMaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.kubernetes.finding import Document, cluster_of
from cluster.kubernetes.pods.templates import PodTemplate, pods_of

CLAIM, SECRET, CONFIG = "PersistentVolumeClaim", "Secret", "ConfigMap"
_VOLUMES = {
    "persistentVolumeClaim": (CLAIM, "claimName"),
    "secret": (SECRET, "secretName"),
    "configMap": (CONFIG, "name"),
}
_FROM = {"secretKeyRef": SECRET, "configMapKeyRef": CONFIG}
_ALL_FROM = {"secretRef": SECRET, "configMapRef": CONFIG}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """`owner` names the object `kind` `name` at `path`; `key` of it, empty for all."""

    owner: str
    path: str
    kind: str
    name: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" ({self.key})" if self.key else "")


def name_of(document: Document) -> str:
    return str((document.get("metadata") or {}).get("name", ""))


def needed(documents: Sequence[Document]) -> list[str]:
    """What must be there already when these documents are applied, each with its kind."""
    made = {(str(each.get("kind")), name_of(each)) for each in documents}
    missing = {str(each) for each in mentions(documents) if (each.kind, each.name) not in made}
    return sorted(missing)


def mentions(documents: Sequence[Document]) -> Iterator[Mention]:
    """Of pods, and of a RayService what the operator gives to pods."""
    for pod in pods_of(documents):
        yield from _of_pod(pod)
    for document in documents:
        yield from _of_cluster(document)
        yield from _of_listeners(document)
        yield from _of_monitor(document)


def _of_listeners(document: Document) -> Iterator[Mention]:
    """Certificates of a Gateway."""
    if document.get("kind") != "Gateway":
        return
    for index, listener in enumerate((document.get("spec") or {}).get("listeners") or []):
        for number, each in enumerate((listener.get("tls") or {}).get("certificateRefs") or []):
            yield Mention(
                owner=f"Gateway/{name_of(document)}",
                path=f"/spec/listeners/{index}/tls/certificateRefs/{number}/name",
                kind=SECRET,
                name=str(each.get("name", "")),
            )


def _of_monitor(document: Document) -> Iterator[Mention]:
    if document.get("kind") != "PodMonitor":
        return
    for index, each in enumerate((document.get("spec") or {}).get("podMetricsEndpoints") or []):
        given = (each.get("authorization") or {}).get("credentials") or {}
        if given.get("name"):
            yield Mention(
                owner=f"PodMonitor/{name_of(document)}",
                path=f"/spec/podMetricsEndpoints/{index}/authorization/credentials/name",
                kind=SECRET,
                name=str(given["name"]),
                key=str(given.get("key", "")),
            )


def _of_cluster(document: Document) -> Iterator[Mention]:
    if document.get("kind") not in ("RayService", "RayCluster"):
        return
    base, cluster = cluster_of(document)
    owner = f"{document['kind']}/{name_of(document)}"
    token = (cluster.get("authOptions") or {}).get("secretName")
    if token:
        yield Mention(
            owner=owner,
            path=f"{base}/authOptions/secretName",
            kind=SECRET,
            name=str(token),
            key="auth_token",
        )
    state = cluster.get("gcsFaultToleranceOptions") or {}
    for field in ("redisUsername", "redisPassword"):
        given = (state.get(field) or {}).get("valueFrom") or {}
        yield from _reference(owner, f"{base}/gcsFaultToleranceOptions/{field}/valueFrom", given)


def _of_pod(pod: PodTemplate) -> Iterator[Mention]:
    for index, volume in enumerate(pod.spec.get("volumes") or []):
        for field, (kind, key) in _VOLUMES.items():
            given = volume.get(field) or {}
            if given.get(key) and not given.get("optional"):
                path = f"{pod.path}/volumes/{index}/{field}/{key}"
                yield Mention(owner=pod.owner, path=path, kind=kind, name=str(given[key]))
    for path, container in pod.containers():
        for index, each in enumerate(container.get("env") or []):
            at = f"{path}/env/{index}/valueFrom"
            yield from _reference(pod.owner, at, each.get("valueFrom") or {})
        for index, each in enumerate(container.get("envFrom") or []):
            for field, kind in _ALL_FROM.items():
                given = each.get(field) or {}
                if given.get("name") and not given.get("optional"):
                    yield Mention(
                        owner=pod.owner,
                        path=f"{path}/envFrom/{index}/{field}/name",
                        kind=kind,
                        name=str(given["name"]),
                    )


def _reference(owner: str, at: str, given: Any) -> Iterator[Mention]:
    for field, kind in _FROM.items():
        found = given.get(field) or {}
        if found.get("name") and not found.get("optional"):
            yield Mention(
                owner=owner,
                path=f"{at}/{field}/name",
                kind=kind,
                name=str(found["name"]),
                key=str(found.get("key", "")),
            )
