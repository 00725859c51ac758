"""Ways into the cluster that an upgrade would cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cluster.kubernetes.between.names import nearly_called
from cluster.kubernetes.between.needed import name_of
from cluster.kubernetes.finding import Document, Finding, services_in
from cluster.kubernetes.pods.labels import selects
from cluster.kubernetes.pods.templates import PodTemplate, pods_of

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
        spec = document.get("spec") or {}
        target = (spec.get("scaleTargetRef") or spec.get("targetRef") or {}).get("kind", "")
        if str(target).startswith("Ray"):
            found.append(
                Finding(
                    rule="autoscaler-on-ray",
                    path="/spec/scaleTargetRef",
                    message=f"{kind} {name!r} would change pods that the operator owns; use "
                    "Serve's and Ray's autoscaling",
                )
            )
    return [*found, *_shared_listeners(documents), *_dead_ends(documents)]


def _shared_listeners(documents: Sequence[Document]) -> Iterator[Finding]:
    """Of an HTTPRoute and a GRPCRoute for the same hosts a listener takes one, and refuses the
    other. Source: Gateway API, GRPCRouteSpec."""
    taken = {
        (listener, host)
        for document in documents
        if document.get("kind") == "HTTPRoute"
        for listener, host in _listeners(document)
    }
    for document in documents:
        if document.get("kind") != "GRPCRoute":
            continue
        for listener, host in _listeners(document):
            # Without a host a route is for all of them.
            if any(
                other == listener and (host == their or not host or not their)
                for other, their in taken
            ):
                name = (document.get("metadata") or {}).get("name")
                yield Finding(
                    rule="route-shared-listener",
                    path="/spec/parentRefs",
                    message=f"GRPCRoute {name!r} shares listener {'/'.join(listener)!r} and hosts "
                    "with an HTTPRoute: one is refused; give it a listener or hosts of its own",
                )


def _dead_ends(documents: Sequence[Document]) -> Iterator[Finding]:
    """Ports by a name that no pod has, and routes to a port that its Service has not: nothing
    refuses them, and every request fails."""
    pods = list(pods_of(documents))
    offered: dict[str, set[object]] = {}
    for service in documents:
        if service.get("kind") != "Service":
            continue
        name = str((service.get("metadata") or {}).get("name", ""))
        ports = (service.get("spec") or {}).get("ports") or []
        offered[name] = {each.get(key) for each in ports for key in ("port", "name")}
        wanted = (service.get("spec") or {}).get("selector") or {}
        selected = [pod for pod in pods if wanted and wanted.items() <= pod.labels.items()]
        known = {port for pod in selected for port, _ in _named_ports(pod)}
        for index, each in enumerate(ports):
            target = each.get("targetPort")
            if selected and isinstance(target, str) and target not in known:
                yield Finding(
                    rule="service-target",
                    path=f"/spec/ports/{index}/targetPort",
                    message=f"Service {name!r}: no pod that it selects has a port {target!r}; "
                    f"allowed: {', '.join(sorted(filter(None, known)))}, or a number",
                )
    for route in documents:
        if route.get("kind") not in _ROUTES:
            continue
        own = (route.get("metadata") or {}).get("name")
        known = {*offered, *_operator_s_own(documents)}
        for name, port in backends_of(route.get("spec")):
            near = nearly_called(name, known)
            if name not in known and near:
                yield Finding(
                    rule="route-backend",
                    path="/spec",
                    message=f"{route['kind']} {own!r}: there is no Service {name!r} here; did you "
                    f"mean {near!r}?",
                )
            if port not in offered.get(name, {port}):
                yield Finding(
                    rule="route-backend",
                    path="/spec",
                    message=f"{route['kind']} {own!r}: Service {name!r} has no port {port!r}; "
                    f"allowed: {sorted(map(str, offered[name]))}",
                )


def _operator_s_own(documents: Sequence[Document]) -> Iterator[str]:
    """Services that the operator makes of a RayService."""
    for service in services_in(list(documents)):
        yield f"{name_of(service)}-head-svc"
        yield f"{name_of(service)}-serve-svc"


def backends_of(value: Any) -> Iterator[tuple[str, object]]:
    """Name and port (its number or its name) of every Service that a route leads to."""
    if isinstance(value, list):
        for each in value:
            yield from backends_of(each)
    if not isinstance(value, dict):
        return
    for each in value.get("backendRefs") or []:
        yield str(each.get("name", "")), each.get("port")
    service = value.get("service")
    if isinstance(service, dict):
        port = service.get("port") or {}
        yield str(service.get("name", "")), port.get("number", port.get("name"))
    for each in value.values():
        yield from backends_of(each)


def _listeners(route: Document) -> Iterator[tuple[tuple[str, str], str]]:
    spec = route.get("spec") or {}
    for parent in spec.get("parentRefs") or []:
        for host in spec.get("hostnames") or [""]:
            yield (str(parent.get("name", "")), str(parent.get("sectionName", ""))), str(host)


def check_ports(documents: Sequence[Document]) -> Iterator[Finding]:
    """Ports that a PodMonitor asks for, and no policy lets anybody from outside ask."""
    pods = list(pods_of(documents))
    for monitor in documents:
        if monitor.get("kind") != "PodMonitor":
            continue
        endpoints = (monitor.get("spec") or {}).get("podMetricsEndpoints") or []
        asked = {str(each.get("port")) for each in endpoints}
        selected = [pod for pod in pods if _selects(monitor, "selector", pod)]
        for policy in documents:
            if policy.get("kind") != "NetworkPolicy":
                continue
            allowed = _allowed(policy)
            for pod in selected:
                if not _selects(policy, "podSelector", pod):
                    continue
                for name, number in _named_ports(pod):
                    if name in asked and allowed is not None and number not in allowed:
                        yield Finding(
                            rule="monitor-port",
                            path="/spec/ingress",
                            message=f"a PodMonitor asks for port {name} ({number}), which the "
                            f"NetworkPolicy lets nobody ask; allowed: {sorted(allowed)}",
                        )


def _selects(document: Document, key: str, pod: PodTemplate) -> bool:
    return selects((document.get("spec") or {}).get(key), pod.labels)


def _allowed(policy: Document) -> set[int] | None:
    """Ports that namespaces may ask; None for all of them."""
    ports: set[int] = set()
    for rule in (policy.get("spec") or {}).get("ingress") or []:
        from_outside = [each for each in rule.get("from") or [{}] if "podSelector" not in each]
        if from_outside and not rule.get("ports"):
            return None
        if from_outside:
            ports |= {each["port"] for each in rule["ports"] if isinstance(each.get("port"), int)}
    return ports


def _named_ports(pod: PodTemplate) -> Iterator[tuple[str, int]]:
    for _, container in pod.containers():
        for each in container.get("ports") or []:
            yield str(each.get("name", "")), int(each.get("containerPort", 0))
