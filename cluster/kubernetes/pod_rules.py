"""What an API server refuses in a pod and no schema knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cluster.kubernetes.finding import Document, Finding
from cluster.kubernetes.pods import PodTemplate, pods_of
from cluster.kubernetes.quantity import quantity

LAST_PORT = 65535


def check_pods(documents: Sequence[Document]) -> list[Finding]:
    """Of every pod template in `documents`."""
    return [found for pod in pods_of(documents) for rule in _RULES for found in rule(pod)]


def _limits(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        resources = container.get("resources") or {}
        limits = resources.get("limits") or {}
        for name, asked in (resources.get("requests") or {}).items():
            if name in limits and quantity(asked) > quantity(limits[name]):
                yield Finding(
                    rule="pod-request-above-limit",
                    path=f"{path}/resources/requests/{name}",
                    message=f"request {asked} is above the limit {limits[name]}",
                )


def _mounts(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for index, mount in enumerate(container.get("volumeMounts") or []):
            if mount.get("name") not in pod.volumes:
                yield Finding(
                    rule="pod-unknown-volume",
                    path=f"{path}/volumeMounts/{index}/name",
                    message=f"no volume {mount.get('name')!r}; allowed: {sorted(pod.volumes)}",
                )


def _ports(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for index, port in enumerate(container.get("ports") or []):
            number = port.get("containerPort")
            if not isinstance(number, int) or not 0 < number <= LAST_PORT:
                yield Finding(
                    rule="pod-port",
                    path=f"{path}/ports/{index}/containerPort",
                    message=f"{number!r} is no port; allowed: 1 to {LAST_PORT}",
                )


_RULES: tuple[Callable[[PodTemplate], Iterator[Finding]], ...] = (_limits, _mounts, _ports)
