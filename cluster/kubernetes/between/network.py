"""Whom network policies let speak with whom: Ray's pods must, and so must clients and Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.kubernetes.between.needed import name_of
from cluster.kubernetes.between.state import address, ports_of, selected_by
from cluster.kubernetes.finding import Document, Finding, cluster_of, services_in
from cluster.kubernetes.pods.labels import selects
from cluster.kubernetes.pods.templates import PodTemplate, pods_of

GCS, DASHBOARD, DNS, DOOR = 6379, 8265, 53, 8000
ANY_OF_WORKERS = 10_002
"""Ray's processes listen on ports of their own choice, from this one on."""
_OWN_NAMESPACE = "kubernetes.io/metadata.name"
_WAYS = frozenset({"Gateway", "Ingress"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """From one pod to a port of another in the same namespace."""

    source: PodTemplate
    target: PodTemplate
    port: int
    namespace: str


def check_network(documents: Sequence[Document]) -> Iterator[Finding]:
    """Of one kustomization. What policies outside it add is not known here."""
    policies = [each for each in documents if each.get("kind") == "NetworkPolicy"]
    for service in services_in(list(documents)):
        namespace = str((service.get("metadata") or {}).get("namespace", "default"))
        mine = [each for each in policies if _namespace(each) == namespace]
        pods = list(pods_of([service]))
        if not pods or not mine:
            continue
        head, workers = pods[0], pods[1:]
        of_ray = list(_ray(mine, head, workers, namespace))
        yield from of_ray or _redis(mine, head, service, documents, namespace)
        if any(each.get("kind") in _WAYS for each in documents):
            yield from _clients(mine, workers)


def _namespace(document: Document) -> str:
    return str((document.get("metadata") or {}).get("namespace", "default"))


def _ray(
    policies: Sequence[Document], head: PodTemplate, workers: Sequence[PodTemplate], namespace: str
) -> Iterator[Finding]:
    for worker in workers:
        ways = (
            _Way(source=worker, target=head, port=GCS, namespace=namespace),
            _Way(source=head, target=worker, port=ANY_OF_WORKERS, namespace=namespace),
        )
        for way in ways:
            direction = _shut(policies, way)
            if direction:
                yield _finding(
                    "ray-shut-out",
                    direction,
                    f"no policy lets Ray's own pods reach port {way.port} of each other "
                    f"({direction}): workers never join the head; allowed: a rule for their own "
                    "labels without ports, for Ray listens on ports of its choice",
                )
                return
    for pod in (head, *workers):
        over = _over(policies, pod, "Egress")
        rules = [rule for each in over for rule in (each["spec"].get("egress") or [])]
        if over and not any(_has_port(rule, DNS, pod) for rule in rules):
            yield _finding(
                "ray-shut-out",
                "egress",
                "no policy lets Ray's pods ask for names (port 53, UDP and TCP): workers never "
                "find the head; allowed: an egress rule for it",
            )
            return


def _redis(
    policies: Sequence[Document],
    head: PodTemplate,
    service: Document,
    documents: Sequence[Document],
    namespace: str,
) -> Iterator[Finding]:
    options = cluster_of(service)[1].get("gcsFaultToleranceOptions") or {}
    if not options.get("redisAddress"):
        return
    host, port = address(str(options["redisAddress"]))
    for each in documents:
        if each.get("kind") == "Service" and name_of(each) == host.partition(".")[0]:
            for target in selected_by(each, documents) if port in ports_of(each) else ():
                way = _Way(source=head, target=target, port=port, namespace=namespace)
                direction = _shut(policies, way)
                if direction:
                    yield _finding(
                        "state-shut-out",
                        direction,
                        f"no policy lets the head reach port {port} of {target.owner} "
                        f"({direction}): it never starts; allowed: a rule for the labels of Ray's "
                        "pods",
                    )


def _clients(policies: Sequence[Document], workers: Sequence[PodTemplate]) -> Iterator[Finding]:
    """Somebody besides Ray's own pods and the operator, who asks the dashboard as well."""
    for worker in workers:
        door = _serve_port(worker)
        rules = [
            rule
            for each in _over(policies, worker, "Ingress")
            for rule in each["spec"].get("ingress") or []
        ]
        if rules and not any(
            _has_port(rule, door, worker)
            and not (rule.get("ports") and _has_port(rule, DASHBOARD, worker))
            and any(not _is_own(each, worker) for each in rule.get("from") or [{}])
            for rule in rules
        ):
            yield _finding(
                "doors-shut",
                "ingress",
                f"no policy lets anybody but Ray's own pods reach the doors' port {door}, and a "
                "Gateway or Ingress shall; allowed: a rule for its namespace or pods",
            )
            return


def _serve_port(pod: PodTemplate) -> int:
    for _, container in pod.containers():
        for each in container.get("ports") or []:
            if each.get("name") == "serve":
                return int(each.get("containerPort", DOOR))
    return DOOR


def _is_own(peer: Document, pod: PodTemplate) -> bool:
    return "namespaceSelector" not in peer and selects(peer.get("podSelector"), pod.labels)


def _finding(rule: str, direction: str, message: str) -> Finding:
    return Finding(rule=rule, path=f"/spec/{direction}", message=message)


def _shut(policies: Sequence[Document], way: _Way) -> str:
    """`ingress` or `egress`, whichever closes it; empty where it is open."""
    for direction, here, there, key in (
        ("ingress", way.target, way.source, "from"),
        ("egress", way.source, way.target, "to"),
    ):
        over = _over(policies, here, direction.capitalize())
        rules = [rule for each in over for rule in each["spec"].get(direction) or []]
        if over and not any(
            _has_port(rule, way.port, way.target)
            and any(_is_met(peer, there, way.namespace) for peer in rule.get(key) or [{}])
            for rule in rules
        ):
            return direction
    return ""


def _over(policies: Sequence[Document], pod: PodTemplate, direction: str) -> list[Document]:
    """Those that say anything of that direction. Source: Kubernetes, NetworkPolicySpec."""
    found = []
    for each in policies:
        spec = each.get("spec") or {}
        usual = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
        if direction in (spec.get("policyTypes") or usual) and selects(
            spec.get("podSelector", {}), pod.labels
        ):
            found.append(each)
    return found


def _is_met(peer: Any, pod: PodTemplate, namespace: str) -> bool:
    """Whether the peer of a rule may be that pod; addresses may be anybody's."""
    if not peer or "ipBlock" in peer:
        return True
    if "namespaceSelector" in peer and not selects(
        peer["namespaceSelector"] or {}, {_OWN_NAMESPACE: namespace}
    ):
        return False
    return "podSelector" not in peer or selects(peer["podSelector"] or {}, pod.labels)


def _has_port(rule: Document, port: int, target: PodTemplate) -> bool:
    asked = rule.get("ports")
    if not asked:
        return True
    named = {
        each.get("name"): each.get("containerPort")
        for _, container in target.containers()
        for each in container.get("ports") or []
    }
    for each in asked:
        first = named.get(each.get("port"), each.get("port"))
        if first is None or (
            isinstance(first, int) and first <= port <= each.get("endPort", first)
        ):
            return True
    return False
