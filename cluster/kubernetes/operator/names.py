"""Names, labels and annotations that the operator refuses."""

from __future__ import annotations

import re

from cluster.kubernetes.operator.rule import CLUSTER, SERVICE, Facts, Mistakes, Rule

MAX_SERVICE_NAME = 47
MAX_CLUSTER_NAME = 53
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_PREFIX = 253
TIMEOUT = "ray.io/initializing-timeout"
_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)"


def _name(facts: Facts, most: int) -> Mistakes:
    name = str(facts.metadata.get("name", ""))
    if len(name) > most or not _DNS_1035.fullmatch(name):
        yield (
            "/metadata/name",
            f"metadata.name {name!r} ({len(name)} characters); allowed: at most {most} of a-z, "
            "0-9 and '-', a letter first",
        )


def _service_name(facts: Facts) -> Mistakes:
    return _name(facts, MAX_SERVICE_NAME)


def _cluster_name(facts: Facts) -> Mistakes:
    return _name(facts, MAX_CLUSTER_NAME)


def _timeout(facts: Facts) -> Mistakes:
    text = str(facts.annotations.get(TIMEOUT, ""))
    if text and not _is_positive(text):
        yield (
            "/metadata/annotations/ray.io~1initializing-timeout",
            f"{TIMEOUT} {text!r}; allowed: a Go duration (30m, 1h30m) or whole seconds, above 0",
        )


def _is_positive(text: str) -> bool:
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text) > 0
    if not re.fullmatch(rf"[+]?({_PART})+", text):
        return False
    return any(float(number) > 0 for number, _ in re.findall(_PART, text))


def _start_labels(facts: Facts) -> Mistakes:
    for group in facts.groups:
        if "labels" in (group.spec.get("rayStartParams") or {}):
            yield (
                f"{group.path}/rayStartParams/labels",
                f"rayStartParams.labels {group.spec['rayStartParams']['labels']!r} is refused; "
                "allowed: the group's own `labels`",
            )


def _label_syntax(facts: Facts) -> Mistakes:
    for group in facts.groups:
        for key, value in (group.spec.get("labels") or {}).items():
            prefix, slash, name = str(key).rpartition("/")
            is_prefix = not slash or (
                len(prefix) <= _MAX_PREFIX and bool(_PREFIX.fullmatch(prefix))
            )
            path = f"{group.path}/labels/{str(key).replace('~', '~0').replace('/', '~1')}"
            if not is_prefix or not _LABEL.fullmatch(name):
                yield (
                    path,
                    f"label key {key!r}; allowed: at most 63 letters, digits, '-', '_', '.', "
                    "before it `domain/` or nothing",
                )
            if value and not _LABEL.fullmatch(str(value)):
                yield (
                    path,
                    f"label {key} has value {value!r}; allowed: at most 63 letters, digits, '-', "
                    "'_', '.', the first and last no sign",
                )


NAMES = (
    Rule(id="operator-name", check=_service_name, kinds=(SERVICE,)),
    Rule(id="operator-cluster-name", check=_cluster_name, kinds=(CLUSTER,)),
    Rule(id="operator-initializing-timeout", check=_timeout, kinds=(SERVICE,)),
    Rule(id="operator-start-labels", check=_start_labels),
    Rule(id="operator-label-syntax", check=_label_syntax),
)
