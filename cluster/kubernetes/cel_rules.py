"""The rules in CEL that a CRD's schema carries (`x-kubernetes-validations`).

Those that name `oldSelf` are about a change: they are asked when two manifests are compared.
Source: Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions", validation rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from cluster.kubernetes.finding import Document, Finding

RULE = "crd-cel"
_KEY = "x-kubernetes-validations"


def is_available() -> bool:
    """Whether CEL can be evaluated (package common-expression-language)."""
    return find_spec("cel") is not None


def broken_rules(value: Any, schema: Any, path: str = "") -> Iterator[Finding]:
    """What a value breaks by itself, all the way down. `schema`: the one of the value."""
    if not isinstance(schema, dict):
        return
    for rule in schema.get(_KEY) or []:
        if "oldSelf" not in rule["rule"]:
            yield from _asked(rule, {"self": value}, path)
    yield from _below(value, None, schema, path)


def broken_by_change(old: Any, new: Any, schema: Any, path: str = "") -> Iterator[Finding]:
    """What a change breaks. As a server does, only where the field is there before and after."""
    if not isinstance(schema, dict) or old is None or new is None:
        return
    for rule in schema.get(_KEY) or []:
        if "oldSelf" in rule["rule"]:
            yield from _asked(rule, {"self": new, "oldSelf": old}, path)
    yield from _below(new, old, schema, path)


def _below(value: Any, old: Any, schema: Document, path: str) -> Iterator[Finding]:
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        others = schema.get("additionalProperties")
        for name, each in value.items():
            sub = properties.get(name, others)
            if old is None:
                yield from broken_rules(each, sub, f"{path}/{name}")
            elif isinstance(old, dict):
                yield from broken_by_change(old.get(name), each, sub, f"{path}/{name}")
    elif isinstance(value, list) and old is None:
        # Entries of lists are not the same before and after for a server either.
        for index, each in enumerate(value):
            yield from broken_rules(each, schema.get("items"), f"{path}/{index}")


def _asked(rule: Document, context: dict[str, Any], path: str) -> Iterator[Finding]:
    import cel

    try:
        is_kept = bool(cel.evaluate(rule["rule"], context))
        message = str(rule.get("message") or rule["rule"])
    except (ValueError, RuntimeError, TypeError) as error:
        # A function of Kubernetes' own that the evaluator lacks: told, never taken for kept.
        is_kept, message = False, f"cannot be evaluated here: {rule['rule']} ({error})"
    if not is_kept:
        yield Finding(rule=RULE, path=path or "/", message=message)
