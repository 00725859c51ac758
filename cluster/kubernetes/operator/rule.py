"""One thing that KubeRay's operator refuses although its CRD allows it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.kubernetes.finding import Document, Finding, Group, Severity, cluster_of, groups_of
from cluster.kubernetes.operator.feature_gates import FeatureGates

VALIDATION = "KubeRay v1.7.0, ray-operator/controllers/ray/utils/validation.go"
V2_VARIABLE = "RAY_enable_autoscaler_v2"
SERVICE, CLUSTER = "RayService", "RayCluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a rule is asked about: a RayService or a RayCluster, and what stands beside it.

    `accounts`: names of the ServiceAccounts in the same documents.
    """

    document: Document
    gates: FeatureGates
    accounts: frozenset[str] = frozenset()

    @property
    def spec(self) -> Document:
        return _mapping(self.document.get("spec"))

    @property
    def metadata(self) -> Document:
        return _mapping(self.document.get("metadata"))

    @property
    def annotations(self) -> Document:
        return _mapping(self.metadata.get("annotations"))

    @property
    def cluster(self) -> Document:
        return cluster_of(self.document)[1]

    @property
    def base(self) -> str:
        """Where `cluster` stands, a JSON pointer."""
        return cluster_of(self.document)[0]

    @property
    def groups(self) -> Sequence[Group]:
        return tuple(groups_of(self.document))

    @property
    def workers(self) -> Sequence[Group]:
        return tuple(group for group in self.groups if not group.is_head)

    @property
    def head(self) -> Group:
        """An empty one when there is none."""
        for group in self.groups:
            if group.is_head:
                return group
        return Group(
            name="head", path=f"{self.base}/headGroupSpec", spec={}, replicas=0, is_head=True
        )

    @property
    def has_autoscaler(self) -> bool:
        return self.cluster.get("enableInTreeAutoscaling") is True

    @property
    def autoscaler(self) -> Document:
        return _mapping(self.cluster.get("autoscalerOptions"))

    @property
    def is_v2(self) -> bool:
        """The operator takes the autoscaler for the second one only where it is written."""
        by_variable = self.head.env().get(V2_VARIABLE) in ("1", "true")
        return self.has_autoscaler and (self.autoscaler.get("version") == "v2" or by_variable)

    @property
    def version(self) -> tuple[int, int] | None:
        """Of Ray, the first two numbers; None when it says none."""
        found = re.fullmatch(r"v?(\d+)\.(\d+)(\.\d+)?.*", str(self.cluster.get("rayVersion", "")))
        return (int(found[1]), int(found[2])) if found else None


Mistakes = Iterator[tuple[str, str]]
"""JSON pointer, and what is wrong there: the key, its value, what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`kinds`: the objects that it is about."""

    id: str
    check: Callable[[Facts], Mistakes]
    source: str = VALIDATION
    severity: Severity = "error"
    kinds: tuple[str, ...] = (SERVICE, CLUSTER)

    def findings(self, facts: Facts) -> Iterator[Finding]:
        if facts.document.get("kind") not in self.kinds:
            return
        for path, message in self.check(facts):
            yield Finding(
                rule=self.id, path=path, message=message, severity=self.severity, source=self.source
            )


def _mapping(given: object) -> Document:
    return dict(given) if isinstance(given, Mapping) else {}
