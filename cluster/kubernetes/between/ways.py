"""Ways from outside to the doors: each route to the door that speaks its language."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import yaml

from cluster.config.server import ServerConfig
from cluster.errors import ConfigError
from cluster.kubernetes.between.needed import name_of
from cluster.kubernetes.between.state import selected_by
from cluster.kubernetes.exposure_rules import RAYS_PORTS
from cluster.kubernetes.finding import Document, Finding, services_in
from cluster.kubernetes.pods.templates import PodTemplate
from cluster.kubernetes.route_rules import backends_of
from cluster.kubernetes.serve.doors import SERVE_PORT
from cluster.kubernetes.serve.needs import configs_in

_METRICS = 8080
_HTTP, _GRPC = frozenset({"HTTPRoute", "Ingress"}), frozenset({"GRPCRoute"})


def check_ways(documents: Sequence[Document]) -> Iterator[Finding]:
    """Of Services over Ray's pods, and of routes to them."""
    for service in services_in(list(documents)):
        text = str((service.get("spec") or {}).get("serveConfigV2") or "")
        try:
            whole, configs = yaml.safe_load(text), configs_in(text)
        except (AttributeError, ConfigError, yaml.YAMLError):
            continue  # other layers have the words for it
        for config in configs:
            ingress = (whole.get("http_options") or {}).get("port", SERVE_PORT)
            yield from _of(documents, service, config.server, ingress)


def _of(
    documents: Sequence[Document], service: Document, server: ServerConfig, ingress: int
) -> Iterator[Finding]:
    doors = {getattr(server, name).port for name in ("http", "grpc", "metrics")}
    listening = {*doors, ingress, _METRICS, *RAYS_PORTS}
    targets: dict[tuple[str, object], int] = {}
    for each in documents:
        pods = selected_by(each, [service]) if each.get("kind") == "Service" else []
        for index, port in enumerate((each.get("spec") or {}).get("ports") or [] if pods else []):
            target = _target(port, pods)
            targets |= {(name_of(each), port.get(key)): target for key in ("port", "name")}
            if target not in listening | _declared(pods):
                yield Finding(
                    rule="service-target",
                    path=f"/spec/ports/{index}/targetPort",
                    message=f"Service {name_of(each)!r} leads to port {target} of pods where "
                    f"nothing listens; allowed: {sorted(doors)}, or a port that a container names",
                )
    yield from _languages(documents, targets, server)


def _languages(
    documents: Sequence[Document], targets: dict[tuple[str, object], int], server: ServerConfig
) -> Iterator[Finding]:
    for route in documents:
        kind = route.get("kind")
        if kind not in _HTTP | _GRPC:
            continue
        right, wrong = server.http.port, server.grpc.port
        if kind in _GRPC:
            right, wrong = wrong, right
        for name, asked in backends_of(route.get("spec")):
            if targets.get((name, asked)) == wrong:
                yield Finding(
                    rule="route-protocol",
                    path="/spec",
                    message=f"{kind} {name_of(route)!r} leads through Service {name!r} to {wrong}, "
                    f"where the other door listens; allowed: {right}",
                )


def _target(port: Document, pods: Sequence[PodTemplate]) -> int:
    """The pods' port; -1 for a name that none has (another rule's)."""
    target = port.get("targetPort", port.get("port"))
    if isinstance(target, int):
        return target
    named = {
        each.get("name"): each.get("containerPort")
        for pod in pods
        for _, container in pod.containers()
        for each in container.get("ports") or []
    }
    return int(named.get(target) or -1)


def _declared(pods: Sequence[PodTemplate]) -> set[int]:
    return {-1} | {
        int(each.get("containerPort", 0))
        for pod in pods
        for _, container in pod.containers()
        for each in container.get("ports") or []
    }
