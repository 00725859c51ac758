"""Ways into the cluster that an upgrade would cut."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.kubernetes.finding import Document, Finding, services_in

INCREMENTAL = "NewClusterWithIncrementalUpgrade"
_ROUTES = frozenset({"Gateway", "HTTPRoute", "GRPCRoute", "Ingress"})


def check_routes(documents: Sequence[Document]) -> list[Finding]:
    """Under an incremental upgrade the operator owns the Gateway, and the stable Service is empty
    for its whole length (kuberay#5148, #4752). Horizontal autoscalers fight the operator."""
    services = services_in(list(documents))
    is_incremental = any(
        ((each.get("spec") or {}).get("upgradeStrategy") or {}).get("type") == INCREMENTAL
        for each in services
    )
    found = []
    for document in documents:
        kind = str(document.get("kind"))
        name = (document.get("metadata") or {}).get("name")
        if is_incremental and kind in _ROUTES:
            found.append(
                Finding(
                    rule="route-incremental",
                    path="/kind",
                    message=f"{kind} {name!r}: under {INCREMENTAL} clients use the operator's own "
                    "Gateway `<name>-gateway`; take out the route or the upgrade strategy",
                )
            )
        target = ((document.get("spec") or {}).get("scaleTargetRef") or {}).get("kind", "")
        if kind == "HorizontalPodAutoscaler" and str(target).startswith("Ray"):
            found.append(
                Finding(
                    rule="autoscaler-on-ray",
                    path="/spec/scaleTargetRef",
                    message=f"{name!r} would change replicas that the operator owns; use Serve's "
                    "and Ray's autoscaling",
                )
            )
    return found
