"""A custom resource against its CRD's schema, as strictly as an API server with strict validation.

Four rules make JSON Schema agree with a real server: defaults are filled in first, nulls of fields
that are not nullable are dropped, `x-kubernetes-list-map-keys` are unique, and fields that the
schema does not know are errors (a server without strict validation prunes them in silence).
Source: Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions", structural schemas.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from cluster.kubernetes import cel_rules
from cluster.kubernetes.finding import Document, Finding

RULE = "crd-schema"
_KEPT = "x-kubernetes-preserve-unknown-fields"


class Crd:
    """One version of one kind."""

    def __init__(self, definition: Document, version: str = "v1") -> None:
        spec = definition["spec"]
        self.kind: str = spec["names"]["kind"]
        self.api_version = f"{spec['group']}/{version}"
        versions = {each["name"]: each for each in spec["versions"]}
        self._schema: Document = versions[version]["schema"]["openAPIV3Schema"]
        self._validator = Draft202012Validator(_strict(self._schema, is_root=True))

    def check(self, document: Document) -> list[Finding]:
        """Every deviation. The document is not changed."""
        filled = self.filled(document)
        found = [
            Finding(rule=RULE, path=_pointer(error.absolute_path), message=_text(error.message))
            for error in self._validator.iter_errors(filled)
        ]
        found += _duplicates(filled, self._schema, "")
        if cel_rules.is_available():
            found += cel_rules.broken_rules(filled, self._schema)
        return found

    def filled(self, document: Document) -> Document:
        """A copy as a server holds it, with the schema's defaults."""
        found: Document = _filled(copy.deepcopy(document), self._schema)
        return found

    def check_change(self, old: Document, new: Document) -> list[Finding]:
        """What a server refuses of a change from `old` to `new`: fields that never change."""
        if not cel_rules.is_available():
            return []
        before, after = self.filled(old), self.filled(new)
        return list(cel_rules.broken_by_change(before, after, self._schema))


def _strict(schema: Any, *, is_root: bool = False) -> Any:
    """Unknown fields refused, int-or-string spelled out, nullable ones allowed to be null."""
    if not isinstance(schema, dict):
        return schema
    out = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes")}
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema:
        out["properties"] = {name: _strict(sub) for name, sub in schema["properties"].items()}
        if not schema.get(_KEPT) and "additionalProperties" not in schema:
            out["additionalProperties"] = False
        if is_root:
            for name in ("apiVersion", "kind", "metadata"):
                out["properties"].setdefault(name, {})
    if "items" in schema:
        out["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = _strict(schema["additionalProperties"])
    if schema.get("format") == "int32":
        out.setdefault("minimum", -(2**31))
        out.setdefault("maximum", 2**31 - 1)
    if schema.get("nullable") and "type" in out:
        out["type"] = [out["type"], "null"]
    return out


def _filled(value: Any, schema: Any) -> Any:
    """With the schema's defaults, and without nulls that a server would drop."""
    if not isinstance(schema, dict):
        return value
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        others = schema.get("additionalProperties")
        for name, sub in properties.items():
            if value.get(name, 0) is None and not sub.get("nullable"):
                del value[name]
            if name not in value and "default" in sub:
                value[name] = copy.deepcopy(sub["default"])
        return {name: _filled(each, properties.get(name, others)) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, schema.get("items")) for each in value]
    return value


def _duplicates(value: Any, schema: Any, path: str) -> Iterator[Finding]:
    """List entries with the same key, where the schema says that keys are unique."""
    if not isinstance(schema, dict):
        return
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        for name, each in value.items():
            yield from _duplicates(each, properties.get(name), f"{path}/{name}")
    if isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys") or []
        seen: set[tuple[str, ...]] = set()
        for index, each in enumerate(value):
            yield from _duplicates(each, schema.get("items"), f"{path}/{index}")
            if keys and isinstance(each, dict):
                key = tuple(str(each.get(name)) for name in keys)
                if key in seen:
                    named = ", ".join(f"{k}={v}" for k, v in zip(keys, key, strict=True))
                    yield Finding(
                        rule=RULE, path=f"{path}/{index}", message=f"appears twice: {named}"
                    )
                seen.add(key)


def _pointer(path: Any) -> str:
    return "".join(f"/{part}" for part in path)


@cache
def _text(message: str) -> str:
    return message if len(message) <= 300 else message[:297] + "..."
