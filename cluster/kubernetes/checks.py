"""All layers of the offline check, over the objects of one kustomization."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from cluster.kubernetes.crd import Crd
from cluster.kubernetes.finding import Document, Finding, groups_of, services_in
from cluster.kubernetes.fit import check_fit
from cluster.kubernetes.operator_rules import check_operator_rules
from cluster.kubernetes.pod_rules import check_pods
from cluster.kubernetes.pods import pods_of
from cluster.kubernetes.policy_rules import check_policies
from cluster.kubernetes.route_rules import check_ports, check_routes


def check_documents(documents: Sequence[Document], crds: Iterable[Crd]) -> list[Finding]:
    """KubeRay's schema, pods, the operator's rules, policies, fit, routes, and selectors that
    select nothing. Kubernetes' own schemas: `cluster.kubernetes.core_schemas`."""
    known = {(crd.api_version, crd.kind): crd for crd in crds}
    found: list[Finding] = []
    for document in documents:
        crd = known.get((str(document.get("apiVersion")), str(document.get("kind"))))
        if crd is not None:
            found += crd.check(document)
    for service in services_in(list(documents)):
        found += check_operator_rules(service)
        found += check_policies(service)
        found += check_fit(service)
    found += [*check_pods(documents), *check_routes(documents), *check_ports(documents)]
    return [*found, *_selectors(documents), *_budgets(documents)]


def with_file(findings: Iterable[Finding], file: str) -> list[Finding]:
    return [replace(each, file=file) for each in findings]


def _selectors(documents: Sequence[Document]) -> list[Finding]:
    """Budgets and policies select pods by label: one that meets no pod protects nothing."""
    labels = [pod.labels for pod in pods_of(documents)]
    found = []
    for document in documents:
        spec = document.get("spec") or {}
        key = {"PodDisruptionBudget": "selector", "NetworkPolicy": "podSelector"}.get(
            str(document.get("kind")), ""
        )
        wanted = (spec.get(key) or {}).get("matchLabels") or {}
        if not key or not wanted or not labels:
            continue
        if not any(wanted.items() <= each.items() for each in labels):
            name = (document.get("metadata") or {}).get("name")
            found.append(
                Finding(
                    rule="selector",
                    path=f"/spec/{key}",
                    message=f"{document['kind']} {name!r} selects no pod: {wanted}",
                )
            )
    return found


def _budgets(documents: Sequence[Document]) -> Iterator[Finding]:
    """Of Ray's pods. How many there should be, which maxUnavailable and shares are about, the
    disruption controller asks the owner's `/scale`, and a RayCluster has none: then nothing may be
    evicted, and drains hang. Source: Kubernetes, "Specifying a Disruption Budget for your
    Application", arbitrary workloads."""
    for budget in documents:
        spec = budget.get("spec") or {}
        wanted = (spec.get("selector") or {}).get("matchLabels") or {}
        if budget.get("kind") != "PodDisruptionBudget" or not wanted:
            continue
        sizes = [
            1 if group.is_head else int(group.spec.get("minReplicas") or 0) * group.num_hosts
            for service in services_in(list(documents))
            for group in groups_of(service)
            if wanted.items() <= group.labels.items()
        ]
        name = (budget.get("metadata") or {}).get("name")
        least = spec.get("minAvailable")
        if not sizes:
            continue
        if not isinstance(least, int):
            key = "minAvailable" if "minAvailable" in spec else "maxUnavailable"
            yield Finding(
                rule="budget-scale",
                path=f"/spec/{key}",
                message=f"{name!r}: {spec.get(key)!r} of pods of a RayCluster lets none of them "
                "go; allowed: minAvailable as a whole number",
            )
        elif least >= sum(sizes):
            yield Finding(
                rule="budget-blocks",
                path="/spec/minAvailable",
                message=f"{name!r}: {least} of at least {sum(sizes)} pods must stay: no node "
                f"with one can be drained; allowed: less than {sum(sizes)}",
            )
