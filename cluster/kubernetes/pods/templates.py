"""Every pod that manifests make, wherever its template stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.kubernetes.finding import Document, groups_of

WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTemplate:
    """`path`: JSON pointer of the template's `spec` in the object `owner` ("Kind/name"). `volumes`:
    what containers may mount, a StatefulSet's claims included."""

    owner: str
    path: str
    labels: dict[str, str]
    spec: Document
    volumes: frozenset[str]

    def containers(self) -> Iterator[tuple[str, Document]]:
        """Of every kind, each with its path."""
        for kind in ("initContainers", "containers"):
            for index, each in enumerate(self.spec.get(kind) or []):
                if isinstance(each, dict):
                    yield f"{self.path}/{kind}/{index}", each


def pods_of(documents: Sequence[Document]) -> Iterator[PodTemplate]:
    """Groups of a RayService and the workloads of Kubernetes itself."""
    for document in documents:
        kind = document.get("kind")
        owner = f"{kind}/{(document.get('metadata') or {}).get('name', '')}"
        if kind in ("RayService", "RayCluster"):
            for group in groups_of(document):
                found = _pod(owner, f"{group.path}/template", group.spec.get("template"))
                yield replace(found, labels=group.labels)
        elif kind in WORKLOADS:
            spec = document.get("spec") or {}
            claims = spec.get("volumeClaimTemplates") or []
            yield _pod(owner, "/spec/template", spec.get("template"), claims)


def _pod(owner: str, path: str, template: Any, claims: Sequence[Document] = ()) -> PodTemplate:
    found = template if isinstance(template, dict) else {}
    spec = found.get("spec") or {}
    names = [each.get("name") for each in spec.get("volumes") or []]
    names += [(each.get("metadata") or {}).get("name") for each in claims]
    return PodTemplate(
        owner=owner,
        path=f"{path}/spec",
        labels=(found.get("metadata") or {}).get("labels") or {},
        spec=spec,
        volumes=frozenset(map(str, names)),
    )
