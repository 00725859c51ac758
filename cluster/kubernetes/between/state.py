"""The head's state in a Redis: an address that leads there, and the password that it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from cluster.kubernetes.between.needed import name_of
from cluster.kubernetes.finding import Document, Finding, cluster_of, services_in
from cluster.kubernetes.pods.templates import PodTemplate, pods_of

REDIS_PORT = 6379


def check_state(documents: Sequence[Document]) -> Iterator[Finding]:
    """Of every RayService with `gcsFaultToleranceOptions`. The head starts before any of it is
    tried, and waits for its Redis for ever."""
    for service in services_in(list(documents)):
        base, cluster = cluster_of(service)
        options = cluster.get("gcsFaultToleranceOptions")
        if isinstance(options, dict) and options.get("backend", "redis") == "redis":
            yield from _of(f"{base}/gcsFaultToleranceOptions", options, documents)


def _of(at: str, options: Document, documents: Sequence[Document]) -> Iterator[Finding]:
    if (options.get("redisPassword") or {}).get("value"):
        yield Finding(
            rule="inline-secret",
            path=f"{at}/redisPassword/value",
            message="the password of Redis stands here in plain text, for whoever reads the "
            "manifest; allowed: valueFrom.secretKeyRef",
        )
    if not options.get("redisAddress"):
        yield Finding(
            rule="state-address",
            path=f"{at}/redisAddress",
            message="is missing: the head would keep its state in its own memory; allowed: "
            "redis://HOST:6379",
        )
        return
    host, port = address(str(options["redisAddress"]))
    services = {name_of(each): each for each in documents if each.get("kind") == "Service"}
    offered = {name: ports_of(each) for name, each in services.items()}
    name = host.partition(".")[0]
    if name in offered and port not in offered[name]:
        yield Finding(
            rule="state-address",
            path=f"{at}/redisAddress",
            message=f"{options['redisAddress']!r}: Service {name!r} has no port {port}; allowed: "
            f"{', '.join(map(str, sorted(offered[name])))}",
        )
    if name in services:
        pods = selected_by(services[name], documents)
        yield from _password(f"{at}/redisPassword", options, pods)
    elif "." not in host:
        here = sorted(each for each, ports in offered.items() if REDIS_PORT in ports)
        if here:
            yield Finding(
                rule="state-address",
                path=f"{at}/redisAddress",
                message=f"{options['redisAddress']!r}: no Service {host!r} here; allowed: "
                f"{', '.join(here)}, or a name with its domain for one elsewhere",
            )


def _password(at: str, options: Document, pods: Sequence[PodTemplate]) -> Iterator[Finding]:
    """Both sides read the same key of the same Secret, or the head is turned away."""
    asked = {reference for pod in pods for reference in _references(pod)}
    given = ((options.get("redisPassword") or {}).get("valueFrom") or {}).get("secretKeyRef") or {}
    own = (str(given.get("name", "")), str(given.get("key", "")))
    if asked and own not in asked:
        told = f"Secret {own[0]!r}, key {own[1]!r}" if given else "no Secret"
        yield Finding(
            rule="state-password",
            path=at,
            message=f"Ray reads {told}; the pods of Redis read "
            f"{', '.join(f'{name!r}, key {key!r}' for name, key in sorted(asked))}: Redis would "
            "turn the head away; allowed: the same one",
        )


def _references(pod: PodTemplate) -> Iterator[tuple[str, str]]:
    for _, container in pod.containers():
        for each in container.get("env") or []:
            found = (each.get("valueFrom") or {}).get("secretKeyRef") or {}
            if found:
                yield str(found.get("name", "")), str(found.get("key", ""))


def address(text: str) -> tuple[str, int]:
    """Host and port of `redis://host:6379`, with and without the scheme."""
    parts = urlsplit(text if "://" in text else f"redis://{text}")
    return parts.hostname or "", parts.port or REDIS_PORT


def selected_by(service: Document, documents: Sequence[Document]) -> list[PodTemplate]:
    """Pods behind a Service."""
    wanted = (service.get("spec") or {}).get("selector") or {}
    return [pod for pod in pods_of(documents) if wanted and wanted.items() <= pod.labels.items()]


def ports_of(service: Document) -> set[int]:
    """That a Service offers."""
    ports = (service.get("spec") or {}).get("ports") or []
    return {int(each["port"]) for each in ports if isinstance(each.get("port"), int)}
