"""All layers of the offline check, over the objects of one kustomization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from cluster.kubernetes.crd import Crd
from cluster.kubernetes.exposure_rules import check_exposure
from cluster.kubernetes.finding import Document, Finding, groups_of, services_in
from cluster.kubernetes.guard import guarded
from cluster.kubernetes.operator.feature_gates import FeatureGates
from cluster.kubernetes.operator.table import check_operator_rules
from cluster.kubernetes.pods.rules import check_pods
from cluster.kubernetes.pods.templates import pods_of
from cluster.kubernetes.policy_rules import check_policies
from cluster.kubernetes.risk_rules import check_risks
from cluster.kubernetes.route_rules import check_ports, check_routes
from cluster.kubernetes.serve.doors import check_doors
from cluster.kubernetes.serve.fit import check_fit
from cluster.kubernetes.serve.schema import check_serve_config


def check_documents(
    documents: Sequence[Document],
    crds: Iterable[Crd],
    *,
    gates: FeatureGates | None = None,
    serve_schema: Document | None = None,
) -> list[Finding]:
    """KubeRay's schema, pods, the operator's rules, policies, Serve's schema, fit, routes, and
    selectors that select nothing. Kubernetes' own schemas: `cluster.kubernetes.core_schemas`.

    `gates`: of the operator that will read them; None is its defaults. `serve_schema`: JSON Schema
    of Serve's config files; None leaves out its keys and values.
    """
    known = {(crd.api_version, crd.kind): crd for crd in crds}
    found: list[Finding] = []
    for document in documents:
        crd = known.get((str(document.get("apiVersion")), str(document.get("kind"))))
        if crd is not None:
            found += crd.check(document)
    found += check_operator_rules(documents, gates or FeatureGates())
    for service in services_in(list(documents)):
        found += guarded("policies", check_policies, service)
        found += guarded("risks", check_risks, service)
        found += guarded("serve", lambda one: check_serve_config(one, serve_schema), service)
        found += guarded("resource-fit", check_fit, service)
        found += guarded("doors", check_doors, service)
    of_all: dict[str, Callable[[Sequence[Document]], Iterable[Finding]]] = {
        "pods": check_pods,
        "routes": check_routes,
        "ports": check_ports,
        "exposure": check_exposure,
        "selectors": _selectors,
        "budgets": _budgets,
    }
    for name, check in of_all.items():
        found += guarded(name, check, documents)
    return found


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
