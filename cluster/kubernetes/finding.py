"""What a check of manifests finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]
Document = dict[str, Any]
"""One Kubernetes object as parsed from YAML."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`rule` names the check; `path` is a JSON pointer into the object; `message` says what is
    wrong, the value, and what is allowed or why it matters. `source`: where the rule is from,
    where it is not ours."""

    rule: str
    path: str
    message: str
    file: str = ""
    severity: Severity = "error"
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A head or worker group of a RayService. `replicas` is the most it may grow to:
    what is written there where Ray's autoscaler is off."""

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
        """Of its pods, with those that the operator gives them (`ray.io/cluster` is a name that it
        makes up: nothing can select by it)."""
        own = ((self.spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
        return {
            "app.kubernetes.io/name": "kuberay",
            "app.kubernetes.io/created-by": "kuberay-operator",
            "ray.io/is-ray-node": "yes",
            "ray.io/node-type": "head" if self.is_head else "worker",
            "ray.io/group": "headgroup" if self.is_head else self.name,
            **({} if self.is_head else {"ray.io/serve": "true"}),
            **own,
        }

    @property
    def num_hosts(self) -> int:
        """Pods that a replica of it is made of."""
        return int(self.spec.get("numOfHosts") or 1)

    def env(self) -> dict[str, str]:
        """Names and plain values of the Ray container; a value from elsewhere is empty."""
        listed = self.container.get("env") or []
        return {each["name"]: str(each.get("value", "")) for each in listed if "name" in each}


def cluster_of(document: Document) -> tuple[str, Document]:
    """The RayCluster's spec in a RayService, or a RayCluster's own, and where it stands."""
    spec = document.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    if document.get("kind") == "RayCluster":
        return "/spec", spec
    cluster = spec.get("rayClusterConfig")
    return "/spec/rayClusterConfig", cluster if isinstance(cluster, dict) else {}


def groups_of(document: Document) -> Iterator[Group]:
    """The head group, then the worker groups, of a RayService or a RayCluster."""
    base, cluster = cluster_of(document)
    head = cluster.get("headGroupSpec")
    if isinstance(head, dict):
        yield Group(name="head", path=f"{base}/headGroupSpec", spec=head, replicas=1, is_head=True)
    is_scaled = cluster.get("enableInTreeAutoscaling") is True
    for index, spec in enumerate(cluster.get("workerGroupSpecs") or []):
        if isinstance(spec, dict):
            hosts = int(spec.get("numOfHosts") or 1)
            most = spec.get("maxReplicas", spec.get("replicas", 0)) if is_scaled else _fixed(spec)
            yield Group(
                name=str(spec.get("groupName", "")),
                path=f"{base}/workerGroupSpecs/{index}",
                spec=spec,
                replicas=int(most if isinstance(most, int) else 0) * hosts,
                is_head=False,
            )


def _fixed(group: Document) -> object:
    """Without Ray's autoscaler nobody adds pods, whatever `maxReplicas` says."""
    given = [group.get("replicas"), group.get("minReplicas")]
    return max((each for each in given if isinstance(each, int)), default=0)


def services_in(documents: list[Document]) -> list[Document]:
    return [each for each in documents if each.get("kind") == "RayService"]
