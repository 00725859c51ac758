"""All layers of the offline check, over the objects of one kustomization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from cluster.kubernetes.between.claims import check_claims
from cluster.kubernetes.between.names import check_names
from cluster.kubernetes.between.namespaces import check_namespaces
from cluster.kubernetes.between.needed import name_of
from cluster.kubernetes.between.network import check_network
from cluster.kubernetes.between.state import check_state
from cluster.kubernetes.between.ways import check_ways
from cluster.kubernetes.crd import Crd
from cluster.kubernetes.exposure_rules import check_exposure
from cluster.kubernetes.finding import Document, Finding, Group, groups_of, services_in
from cluster.kubernetes.guard import guarded
from cluster.kubernetes.operator.feature_gates import FeatureGates
from cluster.kubernetes.operator.table import check_operator_rules
from cluster.kubernetes.pods.labels import selects
from cluster.kubernetes.pods.rules import check_pods
from cluster.kubernetes.pods.start import check_start
from cluster.kubernetes.policy_rules import check_policies
from cluster.kubernetes.risk_rules import check_risks
from cluster.kubernetes.route_rules import check_ports, check_routes
from cluster.kubernetes.serve.doors import check_doors
from cluster.kubernetes.serve.fit import check_fit
from cluster.kubernetes.serve.schema import check_serve_config

RAY_API = "ray.io/v1"


def check_documents(
    documents: Sequence[Document],
    crds: Iterable[Crd],
    *,
    gates: FeatureGates | None = None,
    serve_schema: Document | None = None,
) -> list[Finding]:
    """KubeRay's schema, pods, the operator's rules, policies, Serve's schema, fit, routes, and
    what one object says of another. Kubernetes' own schemas: `cluster.kubernetes.core_schemas`.

    `gates`: of the operator that will read them; None is its defaults. `serve_schema`: JSON Schema
    of Serve's config files; None leaves out its keys and values.
    """
    known = {(crd.api_version, crd.kind): crd for crd in crds}
    found: list[Finding] = []
    for document in documents:
        crd = known.get((str(document.get("apiVersion")), str(document.get("kind"))))
        if crd is not None:
            found += crd.check(document)
        found += _versions(document, known)
    found += check_operator_rules(documents, gates or FeatureGates())
    for service in services_in(list(documents)):
        found += guarded("policies", check_policies, service)
        found += guarded("risks", check_risks, service)
        found += guarded("start", check_start, service)
        found += guarded("serve", lambda one: check_serve_config(one, serve_schema), service)
        found += guarded("resource-fit", check_fit, service)
        found += guarded("doors", check_doors, service)
    of_all: dict[str, Callable[[Sequence[Document]], Iterable[Finding]]] = {
        "pods": check_pods,
        "routes": check_routes,
        "ports": check_ports,
        "exposure": check_exposure,
        "namespaces": check_namespaces,
        "names": check_names,
        "ways": check_ways,
        "network": check_network,
        "state": check_state,
        "claims": check_claims,
        "budgets": _budgets,
    }
    for name, check in of_all.items():
        found += guarded(name, check, documents)
    return found


def _versions(document: Document, known: Mapping[tuple[str, str], Crd]) -> Iterator[Finding]:
    """A kind of Ray's in another version, or misspelt, would be checked by nobody."""
    api, kind = str(document.get("apiVersion")), str(document.get("kind"))
    if api.startswith("ray.io/") and (api != RAY_API or (known and (api, kind) not in known)):
        kinds = ", ".join(sorted(kind for _, kind in known)) or kind
        yield Finding(
            rule="ray-api",
            path="/apiVersion",
            message=f"{api} {kind}: v1alpha1 is deprecated, other versions and kinds there are "
            f"none; allowed: {RAY_API} with {kinds}",
        )


def with_file(findings: Iterable[Finding], file: str) -> list[Finding]:
    return [replace(each, file=file) for each in findings]


def _budgets(documents: Sequence[Document]) -> Iterator[Finding]:
    """Of Ray's pods. How many there should be, which maxUnavailable and shares are about, the
    disruption controller asks the owner's `/scale`, and a RayCluster has none: then nothing may be
    evicted, and drains hang. Source: Kubernetes, "Specifying a Disruption Budget for your
    Application", arbitrary workloads."""
    budgets = [each for each in documents if each.get("kind") == "PodDisruptionBudget"]
    groups = [group for service in services_in(list(documents)) for group in groups_of(service)]
    yield from _twice(budgets, groups)
    for budget in budgets:
        spec = budget.get("spec") or {}
        sizes = [
            1 if group.is_head else int(group.spec.get("minReplicas") or 0) * group.num_hosts
            for group in groups
            if selects(spec.get("selector"), group.labels)
        ]
        name = name_of(budget)
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


def _twice(budgets: Sequence[Document], groups: Sequence[Group]) -> Iterator[Finding]:
    """The API for evictions answers 500 for a pod with two budgets. Source: Kubernetes,
    registry/core/pod/rest/eviction.go."""
    for group in groups:
        over = [
            name_of(each)
            for each in budgets
            if selects((each.get("spec") or {}).get("selector"), group.labels)
        ]
        if len(over) > 1:
            yield Finding(
                rule="budget-twice",
                path="/spec/selector",
                message=f"{', '.join(map(repr, over))} are all of {group.name!r}: a pod with two "
                "budgets is never evicted; allowed: one",
            )
