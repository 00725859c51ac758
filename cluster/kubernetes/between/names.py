"""Names by which one object means another: a letter off, and nothing is refused nor runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence

from cluster.kubernetes.between.needed import Mention, mentions, name_of
from cluster.kubernetes.finding import Document, Finding
from cluster.kubernetes.pods.labels import selects
from cluster.kubernetes.pods.templates import WORKLOADS, PodTemplate, pods_of

SELECTORS = {
    "PodDisruptionBudget": "selector",
    "NetworkPolicy": "podSelector",
    "PodMonitor": "selector",
}
METRICS_PATH = "/metrics"
_NEAR = 0.85
_NEARER = 0.9
"""Of claims and Secrets others than ours are usual, with names that resemble them."""
_METRICS = "metrics"
"""The operator adds this port (8080) to Ray's containers."""


def check_names(documents: Sequence[Document]) -> Iterator[Finding]:
    """Of one kustomization."""
    yield from _workloads(documents)
    yield from _selectors(documents)
    yield from _services(documents)
    yield from _monitors(documents)
    yield from _parents(documents)
    yield from _misspelt(documents)


def _workloads(documents: Sequence[Document]) -> Iterator[Finding]:
    """A server refuses it: such a workload would never find its own pods."""
    for document in documents:
        spec = document.get("spec") or {}
        if document.get("kind") not in WORKLOADS - {"Job"}:
            continue
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
        if not selects(spec.get("selector"), labels):
            yield Finding(
                rule="workload-selector",
                path="/spec/selector",
                message=f"{document['kind']} {name_of(document)!r} selects {spec.get('selector')}, "
                f"and its own pods have {labels}: a server refuses it; allowed: labels of its "
                "template",
            )


def _selectors(documents: Sequence[Document]) -> Iterator[Finding]:
    """Budgets, policies and monitors select pods by label: one that meets none protects nothing."""
    labels = [pod.labels for pod in pods_of(documents)]
    for document in documents:
        key = SELECTORS.get(str(document.get("kind")), "")
        wanted = (document.get("spec") or {}).get(key) or {}
        if not wanted or not labels:
            continue
        if not any(selects(wanted, each) for each in labels):
            yield Finding(
                rule="selector",
                path=f"/spec/{key}",
                message=f"{document['kind']} {name_of(document)!r} selects no pod: {wanted}",
            )


def _services(documents: Sequence[Document]) -> Iterator[Finding]:
    """Of pods that carry the same labels with other values: pods that others make are not known."""
    labels = [pod.labels for pod in pods_of(documents)]
    for document in documents:
        wanted = (document.get("spec") or {}).get("selector") or {}
        if document.get("kind") != "Service" or not wanted:
            continue
        near = [each for each in labels if wanted.keys() <= each.keys()]
        if near and not any(wanted.items() <= each.items() for each in near):
            there = sorted({f"{key}={each[key]}" for each in near for key in wanted})
            yield Finding(
                rule="service-selector",
                path="/spec/selector",
                message=f"Service {name_of(document)!r} selects no pod: {wanted}; the pods here "
                f"have {', '.join(there)}",
            )


def _monitors(documents: Sequence[Document]) -> Iterator[Finding]:
    """Prometheus passes over a port that no pod has, without a word."""
    pods = list(pods_of(documents))
    for monitor in documents:
        if monitor.get("kind") != "PodMonitor":
            continue
        spec = monitor.get("spec") or {}
        selected = [pod for pod in pods if selects(spec.get("selector"), pod.labels)]
        known = {name for pod in selected for name in _port_names(pod)}
        for index, each in enumerate(spec.get("podMetricsEndpoints") or []):
            at = f"/spec/podMetricsEndpoints/{index}"
            if selected and each.get("port") is not None and each["port"] not in known:
                yield Finding(
                    rule="monitor-target",
                    path=f"{at}/port",
                    message=f"PodMonitor {name_of(monitor)!r}: no pod that it selects has a port "
                    f"{each['port']!r}, nothing is scraped; allowed: {', '.join(sorted(known))}",
                )
            is_rays = any(pod.owner.startswith("Ray") for pod in selected)
            if is_rays and each.get("path", METRICS_PATH) != METRICS_PATH:
                yield Finding(
                    rule="monitor-target",
                    path=f"{at}/path",
                    message=f"PodMonitor {name_of(monitor)!r}: path {each['path']!r}; doors and "
                    f"Ray answer {METRICS_PATH} only",
                )


def _port_names(pod: PodTemplate) -> Iterator[str]:
    if pod.owner.startswith("Ray"):
        yield _METRICS
    for _, container in pod.containers():
        for each in container.get("ports") or []:
            yield str(each.get("name", ""))


def _parents(documents: Sequence[Document]) -> Iterator[Finding]:
    """A route of a Gateway that is not there, or of a listener that it has not, takes no traffic.
    A Gateway of others is only looked at where its name is nearly that of one here."""
    listeners = {
        name_of(each): {str(one.get("name")) for one in (each.get("spec") or {})["listeners"]}
        for each in documents
        if each.get("kind") == "Gateway" and (each.get("spec") or {}).get("listeners")
    }
    for route in documents:
        for index, parent in enumerate((route.get("spec") or {}).get("parentRefs") or []):
            name, section = str(parent.get("name", "")), parent.get("sectionName")
            near = nearly_called(name, listeners)
            if parent.get("kind", "Gateway") != "Gateway" or parent.get("namespace") or not near:
                continue
            if name not in listeners:
                told = f"there is no Gateway {name!r} here; did you mean {near!r}?"
            elif section is not None and section not in listeners[name]:
                told = (
                    f"Gateway {name!r} has no listener {section!r}; allowed: "
                    f"{', '.join(sorted(listeners[name]))}"
                )
            else:
                continue
            yield Finding(
                rule="route-parent",
                path=f"/spec/parentRefs/{index}",
                message=f"{route.get('kind')} {name_of(route)!r}: {told}",
            )


def _misspelt(documents: Sequence[Document]) -> Iterator[Finding]:
    """Claims, Secrets and ConfigMaps that nobody here makes may be there already; one that is
    nearly called as another is a slip of the hand, and its pods never start."""
    made = {(str(each.get("kind")), name_of(each)) for each in documents}
    asked = list(mentions(documents))
    known = made | {(each.kind, each.name) for each in asked}
    for each in asked:
        others = {name for kind, name in known if kind == each.kind and name != each.name}
        near = _nearly(each, others, made, asked)
        if (each.kind, each.name) not in made and near:
            yield Finding(
                rule="name-misspelt",
                path=each.path,
                message=f"{each.owner}: {each.kind} {each.name!r} is made by nobody here, and "
                f"nearly called {near!r}; if that is meant its pods never start",
                severity="error" if (each.kind, near) in made else "warning",
            )


def _nearly(
    one: Mention, names: set[str], made: set[tuple[str, str]], asked: Sequence[Mention]
) -> str:
    """Of two that are only asked for, the rarer is the slip, or either. Names that differ in
    numbers alone are a series."""
    counts = {name: sum(each.name == name for each in asked) for name in (one.name, *names)}
    for near in difflib.get_close_matches(one.name, sorted(names), n=3, cutoff=_NEARER):
        is_series = _without_numbers(near) == _without_numbers(one.name)
        if not is_series and ((one.kind, near) in made or counts[near] >= counts[one.name]):
            return near
    return ""


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "", name)


def nearly_called(name: str, known: Collection[str]) -> str:
    """The one of `known` that `name` is a slip of; empty for none."""
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=_NEAR)
    return found[0] if found else ""
