"""Ray's own ports: never open to the outside, and not closed to the operator either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cluster.kubernetes.finding import Document, Finding, groups_of, services_in
from cluster.kubernetes.pods.templates import PodTemplate, pods_of
from cluster.kubernetes.route_rules import backends_of

DASHBOARD = 8265
RAYS_PORTS = {6379: "GCS", DASHBOARD: "dashboard and jobs", 10001: "client", 52365: "agent"}
"""Each runs code, or changes the cluster, for who holds Ray's token."""
_WHY = "whoever gets Ray's token runs any code there"
_PUBLIC = frozenset({"LoadBalancer", "NodePort"})
_ROUTES = frozenset({"Ingress", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"})
_HEAD_SERVICE = "-head-svc"
_HEAD_PORTS: dict[object, int] = {
    **{port: port for port in RAYS_PORTS},
    "gcs-server": 6379,
    "dashboard": DASHBOARD,
    "client": 10001,
}
"""Of the Service that the operator makes, by name and number."""


def check_exposure(documents: Sequence[Document]) -> Iterator[Finding]:
    """Services, routes and policies over the pods of RayServices."""
    yield from _operator_s_own(documents)
    pods = [pod for service in services_in(list(documents)) for pod in pods_of([service])]
    targets: dict[str, dict[object, int]] = {}
    for document in documents:
        if document.get("kind") == "Service":
            spec = document.get("spec") or {}
            ports = targets[_name(document)] = _rays_ports_of(spec, pods)
            if ports and (spec.get("type") in _PUBLIC or spec.get("externalIPs")):
                yield _exposed("/spec/type", f"Service {_name(document)!r}", {*ports.values()})
        elif document.get("kind") == "NetworkPolicy":
            yield from _opened(document, pods)
    for document in documents:
        if document.get("kind") not in _ROUTES:
            continue
        for name, port in backends_of(document.get("spec")):
            known = targets.get(name, _HEAD_PORTS if name.endswith(_HEAD_SERVICE) else {})
            if port in known:
                what = f"{document['kind']} {_name(document)!r} leads to {name!r} and"
                yield _exposed("/spec", what, {known[port]})
    yield from _shut_out(documents)


def _name(document: Document) -> str:
    return str((document.get("metadata") or {}).get("name", ""))


def _exposed(path: str, what: str, ports: set[int]) -> Finding:
    told = ", ".join(f"{port} ({RAYS_PORTS[port]})" for port in sorted(ports))
    return Finding(
        rule="ray-port-exposed",
        path=path,
        message=f"{what} shows Ray's port {told} to the outside: {_WHY}; allowed: the doors' ports "
        "8000 and 8001 there, Ray's by `kubectl port-forward`",
    )


def _operator_s_own(documents: Sequence[Document]) -> Iterator[Finding]:
    """The head's Service and Ingress, which the operator makes, are of these fields."""
    for service in services_in(list(documents)):
        for group in groups_of(service):
            if not group.is_head:
                continue
            own = (group.spec.get("headService") or {}).get("spec") or {}
            for key, kind in (
                ("serviceType", group.spec.get("serviceType")),
                ("headService/spec/type", own.get("type")),
            ):
                if kind in _PUBLIC:
                    yield _exposed(f"{group.path}/{key}", str(kind), {6379, DASHBOARD, 10001})
            if group.spec.get("enableIngress") is True:
                yield _exposed(f"{group.path}/enableIngress", "an Ingress", {DASHBOARD})


def _rays_ports_of(spec: Document, pods: Sequence[PodTemplate]) -> dict[object, int]:
    """Of a Service, those that lead to Ray's: name and number of each -> the pod's port."""
    wanted = spec.get("selector") or {}
    found: dict[object, int] = {}
    for pod in pods:
        if not wanted or not wanted.items() <= pod.labels.items():
            continue
        named = {
            each.get("name"): each.get("containerPort")
            for _, container in pod.containers()
            for each in container.get("ports") or []
        }
        for port in spec.get("ports") or []:
            target = port.get("targetPort", port.get("port"))
            target = named.get(target, target)
            if target in RAYS_PORTS:
                found |= {key: target for key in (port.get("name"), port.get("port")) if key}
    return found


def _opened(policy: Document, pods: Sequence[PodTemplate]) -> Iterator[Finding]:
    """A namespace by its label is somebody's decision; everybody is a mistake."""
    if not any(_is_selected(policy, pod) for pod in pods):
        return
    for index, rule in enumerate((policy.get("spec") or {}).get("ingress") or []):
        if not all(_is_somebody(each) for each in rule.get("from") or [{}]):
            ports = {port for port in RAYS_PORTS if _lets_in(rule, port)}
            if ports:
                what = f"NetworkPolicy {_name(policy)!r} lets everybody in and"
                yield _exposed(f"/spec/ingress/{index}", what, ports)


def _is_somebody(peer: Any) -> bool:
    if "ipBlock" in peer:
        return str((peer["ipBlock"] or {}).get("cidr", "")).partition("/")[2] not in ("", "0")
    if "namespaceSelector" in peer and "podSelector" not in peer:
        return bool(peer["namespaceSelector"])
    return bool(peer)


def _lets_in(rule: Document, port: int) -> bool:
    asked = rule.get("ports")
    if not asked:
        return True
    for each in asked:
        first = each.get("port")
        if first is None or (
            isinstance(first, int) and first <= port <= each.get("endPort", first)
        ):
            return True
    return False


def _is_selected(policy: Document, pod: PodTemplate) -> bool:
    wanted = ((policy.get("spec") or {}).get("podSelector") or {}).get("matchLabels") or {}
    return bool(wanted.items() <= pod.labels.items())


def _shut_out(documents: Sequence[Document]) -> Iterator[Finding]:
    """The operator puts the Serve config to the head's dashboard port, from its own namespace."""
    policies = [
        each
        for each in documents
        if each.get("kind") == "NetworkPolicy"
        and "Ingress" in ((each.get("spec") or {}).get("policyTypes") or ["Ingress"])
    ]
    for service in services_in(list(documents)):
        head = next(iter(pods_of([service])), None)
        over = [each for each in policies if head is not None and _is_selected(each, head)]
        rules = [rule for each in over for rule in (each.get("spec") or {}).get("ingress") or []]
        if over and not any(_lets_in(rule, DASHBOARD) and _from_elsewhere(rule) for rule in rules):
            yield Finding(
                rule="operator-shut-out",
                path="/spec/ingress",
                message=f"NetworkPolicy {_name(over[0])!r} lets nobody of another namespace reach "
                f"{DASHBOARD} of the head: KubeRay's operator cannot submit the Serve config, and "
                "the RayService is never Ready; allowed: a rule for the operator's namespace",
                source="kuberay#3467",
            )


def _from_elsewhere(rule: Document) -> bool:
    return any(
        not peer or "namespaceSelector" in peer or "ipBlock" in peer
        for peer in rule.get("from") or [{}]
    )
