"""What a config says of doors and files, held against the pods that they will be in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import yaml

from cluster.config.security.exposure import is_loopback
from cluster.config.security.references import REFERENCE
from cluster.config.server import KEYS_VARIABLE, ServerConfig
from cluster.config.squadron import SquadronConfig
from cluster.errors import ConfigError
from cluster.kubernetes.finding import Document, Finding, Group, groups_of
from cluster.kubernetes.serve.needs import configs_in

PATH = "/spec/serveConfigV2"
SERVE_PORT = 8000
"""Where Serve's own ingress listens when the config does not say."""
_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")
_OPEN_PATHS = frozenset(
    {"/-/healthz", "/-/routes", "/v2/health/live", "/v2/health/ready", "/health", "/ping"}
)
"""What a door answers without a key."""
_RAYS = frozenset({6379, 8265, 10001, 52365, 8080, 44217, 44227})


def check_doors(service: Document) -> Iterator[Finding]:
    """Of one RayService: who reaches its doors, and whether its files and secrets are there."""
    text = str((service.get("spec") or {}).get("serveConfigV2") or "")
    try:
        whole, configs = yaml.safe_load(text), configs_in(text)
    except (AttributeError, ConfigError, yaml.YAMLError):
        return  # other layers have the words for it
    for config in configs:
        yield from _listening(config.server)
        yield from _probed(service, whole, config.server)
        yield from _head(service, config.server)
        yield from _files(service, config)
        yield from _references(service, config.server)


def _finding(rule: str, message: str, *, path: str = PATH, is_error: bool = True) -> Finding:
    return Finding(
        rule=rule, path=path, message=message, severity="error" if is_error else "warning"
    )


def _listening(server: ServerConfig) -> Iterator[Finding]:
    for name in ("http", "grpc", "metrics"):
        host = getattr(server, name).host
        if is_loopback(host):
            yield _finding(
                "door-host",
                f"server.{name}.host {host!r}: nobody outside the pod reaches it; allowed: 0.0.0.0 "
                "(`squadron k8s render` writes it)",
                is_error=name == "http",
            )
    if server.tls is not None:
        yield _finding(
            "door-tls",
            "server.tls: KubeRay's readiness probe speaks plain HTTP, no worker would be ready; "
            "allowed: TLS at the gateway (component `tls-gateway`)",
        )


def _probed(service: Document, whole: Any, server: ServerConfig) -> Iterator[Finding]:
    """KubeRay asks the port called `serve`, else 8000, of every worker. Source: KubeRay v1.7.0,
    common/pod.go, initReadinessAndLivenessProbe."""
    doors = {getattr(server, name).port for name in ("http", "grpc", "metrics")}
    ingress = (whole.get("http_options") or {}).get("port", SERVE_PORT)
    if whole.get("proxy_location") != "Disabled" and ingress in doors:
        yield _finding(
            "door-port",
            f"http_options.port {ingress}: a door listens there, and only one of both can; "
            "allowed: another one, as 8500",
        )
    for group in groups_of(service):
        if group.is_head:
            continue
        ports = group.container.get("ports") or []
        named = {each.get("name"): each.get("containerPort") for each in ports}
        asked = named.get("serve", SERVE_PORT)
        at = f"{group.path}/template/spec/containers/0"
        if server.http.port != asked:
            yield _finding(
                "door-port",
                f"server.http.port {server.http.port}: KubeRay's readiness probe asks {asked} "
                f"(the port called `serve` of {group.name!r}, else {SERVE_PORT}); allowed: {asked}",
            )
        known = {*doors, *named.values(), ingress, *_RAYS}
        for kind in _PROBES:
            probe = group.container.get(kind) or {}
            for way in ("httpGet", "tcpSocket", "grpc"):
                asks = probe.get(way) or {}
                port = named.get(asks.get("port"), asks.get("port"))
                if asks and port not in known:
                    yield _finding(
                        "door-probe",
                        f"{kind} asks port {port!r}, where nothing listens; allowed: "
                        f"{sorted(doors)}, or the name of a port",
                        path=f"{at}/{kind}",
                    )
                elif way == "httpGet" and port == server.http.port:
                    yield from _probe_path(asks, f"{at}/{kind}/httpGet/path")


def _probe_path(asks: Document, at: str) -> Iterator[Finding]:
    if asks.get("path") not in _OPEN_PATHS:
        yield _finding(
            "door-probe",
            f"path {asks.get('path')!r} is not one that a door answers to callers without a key; "
            f"allowed: {', '.join(sorted(_OPEN_PATHS))}",
            path=at,
        )


def _head(service: Document, server: ServerConfig) -> Iterator[Finding]:
    """Doors take a part of a CPU, and Ray offers none on a head with `num-cpus: "0"`."""
    spec = service.get("spec") or {}
    cpus = [
        (group.spec.get("rayStartParams") or {}).get("num-cpus")
        for group in groups_of(service)
        if group.is_head
    ]
    if cpus == ["0"] and spec.get("excludeHeadPodFromServeSvc") is not True:
        yield _finding(
            "head-served",
            f"{spec.get('excludeHeadPodFromServeSvc')}: the head has no door (num-cpus 0), and the "
            f"Service would send it requests to port {server.http.port}; allowed: true",
            path="/spec/excludeHeadPodFromServeSvc",
        )


def _files(service: Document, config: SquadronConfig) -> Iterator[Finding]:
    """Models may lie in the image itself, so that is a warning only; keys and secrets have no
    place in one."""
    store, secrets = config.store.path, {each["file"] for each in _found(config.server)}
    for group in groups_of(service):
        if not group.container:
            continue
        keys = config.server.api_keys or group.env().get(KEYS_VARIABLE, "")
        if keys and not _is_mounted(group, keys):
            yield _finding("config-keys", _not_mounted(group, f"server.api_keys {keys!r}"))
        if "://" not in store and not _is_mounted(group, store):
            yield _finding(
                "config-store", _not_mounted(group, f"store.path {store!r}"), is_error=False
            )
        for each in sorted(each for each in secrets if each):
            if not _is_mounted(group, each):
                yield _finding("config-reference", _not_mounted(group, f"${{file:{each}}}"))


def _not_mounted(group: Group, what: str) -> str:
    there = ", ".join(_mounts(group)) or "none"
    return f"{what} lies in no volume that {group.name!r} mounts; allowed: below one of {there}"


def _references(service: Document, server: ServerConfig) -> Iterator[Finding]:
    names = sorted({each["name"] for each in _found(server) if each["name"]})
    for group in groups_of(service):
        # What a whole secret or ConfigMap brings is not known here.
        if not group.container or group.container.get("envFrom"):
            continue
        for name in names:
            if name not in group.env():
                yield _finding(
                    "config-reference",
                    f"${{{name}}}: the environment of {group.name!r} has no {name}; allowed: an "
                    "env entry with valueFrom.secretKeyRef, or the component `secrets`",
                )


def _found(server: ServerConfig) -> Iterator[re.Match[str]]:
    for text in _texts(server.model_dump()):
        yield from REFERENCE.finditer(text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _mounts(group: Group) -> list[str]:
    mounts = group.container.get("volumeMounts") or []
    return sorted(str(each.get("mountPath", "")) for each in mounts)


def _is_mounted(group: Group, file: str) -> bool:
    path = PurePosixPath(file)
    return any(path.is_relative_to(each) for each in _mounts(group) if each)
