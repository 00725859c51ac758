"""What a check of manifests finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
"""One Kubernetes object as parsed from YAML."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`rule` names the check; `path` is a JSON pointer into the object; `message` says what is
    wrong, the value, and what is allowed or why it matters."""

    rule: str
    path: str
    message: str
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A head or worker group of a RayService. `replicas` is the most it may grow to."""

    name: str
    path: str
    spec: Document
    replicas: int
    is_head: bool

    @property
    def pod(self) -> Document:
        """Its pods' spec, empty when there is none."""
        found = (self.spec.get("template") or {}).get("spec") or {}
        return found if isinstance(found, dict) else {}

    @property
    def container(self) -> Document:
        """Ray's: the first one."""
        containers = self.pod.get("containers") or [{}]
        return containers[0] if isinstance(containers[0], dict) else {}

    @property
    def labels(self) -> dict[str, str]:
        """Of its pods."""
        return ((self.spec.get("template") or {}).get("metadata") or {}).get("labels") or {}

    @property
    def num_hosts(self) -> int:
        """Pods that a replica of it is made of."""
        return int(self.spec.get("numOfHosts") or 1)

    def env(self) -> dict[str, str]:
        """Names and plain values of the Ray container; a value from elsewhere is empty."""
        listed = self.container.get("env") or []
        return {each["name"]: str(each.get("value", "")) for each in listed if "name" in each}


def groups_of(service: Document) -> Iterator[Group]:
    """The head group, then the worker groups."""
    cluster = (service.get("spec") or {}).get("rayClusterConfig") or {}
    base = "/spec/rayClusterConfig"
    head = cluster.get("headGroupSpec")
    if isinstance(head, dict):
        yield Group(name="head", path=f"{base}/headGroupSpec", spec=head, replicas=1, is_head=True)
    for index, spec in enumerate(cluster.get("workerGroupSpecs") or []):
        if isinstance(spec, dict):
            hosts = int(spec.get("numOfHosts") or 1)
            most = spec.get("maxReplicas", spec.get("replicas", 0))
            yield Group(
                name=str(spec.get("groupName", "")),
                path=f"{base}/workerGroupSpecs/{index}",
                spec=spec,
                replicas=int(most if isinstance(most, int) else 0) * hosts,
                is_head=False,
            )


def services_in(documents: list[Document]) -> list[Document]:
    return [each for each in documents if each.get("kind") == "RayService"]
