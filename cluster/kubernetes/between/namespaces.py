"""Objects that mean each other lie in one namespace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.kubernetes.between.needed import CLAIM, CONFIG, SECRET, mentions, name_of
from cluster.kubernetes.finding import Document, Finding, services_in

_OF_THE_CLUSTER = frozenset(
    {
        "Namespace",
        "Node",
        "PersistentVolume",
        "StorageClass",
        "CSIDriver",
        "CustomResourceDefinition",
        "PriorityClass",
        "RuntimeClass",
        "IngressClass",
        "GatewayClass",
        "VolumeSnapshotClass",
        "ResourceFlavor",
        "WorkloadPriorityClass",
        "APIService",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
)
"""Without a namespace, with every kind called `Cluster...`."""
_SELECTING = frozenset({"NetworkPolicy", "PodDisruptionBudget", "Service", "PodMonitor"})


def check_namespaces(documents: Sequence[Document]) -> Iterator[Finding]:
    """Of one kustomization: what has no namespace goes where kubectl happens to look, and a claim,
    a ConfigMap or a policy there is none for the pods."""
    homes = {_namespace(each) for each in services_in(list(documents))} - {""}
    if len(homes) != 1:
        return
    (home,) = homes
    asked = {(each.kind, each.name) for each in mentions(documents)}
    for document in documents:
        kind, mine = str(document.get("kind")), _namespace(document)
        if kind in _OF_THE_CLUSTER or kind.startswith("Cluster") or mine == home:
            continue
        is_meant = kind in {CLAIM, SECRET, CONFIG} and (kind, name_of(document)) in asked
        is_wide = bool((document.get("spec") or {}).get("namespaceSelector"))
        if not mine or is_meant or (kind in _SELECTING and not is_wide):
            told = f"namespace {mine!r}" if mine else "no namespace (kubectl's own)"
            yield Finding(
                rule="namespace",
                path="/metadata/namespace",
                message=f"{kind} {name_of(document)!r} has {told}, the RayService {home!r}: its "
                f"pods do not find it; allowed: {home} (`namespace: {home}` in the kustomization)",
            )


def _namespace(document: Document) -> str:
    return str((document.get("metadata") or {}).get("namespace") or "")
