"""Pydantic's complaints as one `ConfigError` that names file, key, value and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cluster.errors import ConfigError

_ADDRESS_SECRET = re.compile(r"://[^\s'\"]*@")
"""Who logs in, and the password, in an address."""


def explain(error: ValidationError, schema: type[BaseModel], source: str) -> ConfigError:
    """One line a mistake: `file: key.path: what is wrong (got value); allowed: …`."""
    lines: list[str] = []
    first: dict[str, str] = {}
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"]) or "(top level)"
        value = _shown(detail)
        allowed = _allowed(detail, schema)
        said = f"{source}: {key}: {_message(detail)}"
        if value:
            said += f", got {value}"
        if allowed:
            said += f"; allowed: {allowed}"
        lines.append(said)
        first = first or {"file": source, "key": key, "value": value, "allowed": allowed}
    return ConfigError("\n".join(lines), **first)


def _message(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "this key is required and missing"
        case _:
            text = str(detail["msg"])
            return text.removeprefix("Value error, ")


def _shown(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return ""
    text = _ADDRESS_SECRET.sub("://***@", repr(detail["input"]))
    return text if len(text) <= 80 else text[:77] + "..."


def _allowed(detail: ErrorDetails, schema: type[BaseModel]) -> str:
    location = tuple(detail["loc"])
    if detail["type"] == "extra_forbidden":
        fields = sorted(_fields_at(schema, location[:-1]))
        near = difflib.get_close_matches(str(location[-1]), fields, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return ", ".join(fields) + hint
    context = detail.get("ctx", {})
    limits = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    if "expected" in context:
        return str(context["expected"])
    if "expected_tags" in context:
        return str(context["expected_tags"])
    if "pattern" in context:
        return f"text matching {context['pattern']}"
    return " and ".join(f"{sign} {context[key]}" for key, sign in limits.items() if key in context)


def _fields_at(schema: object, location: tuple[str | int, ...]) -> Iterator[str]:
    """The keys allowed at a place of the schema; every member of a union counts."""
    for model in _models(schema):
        if not location:
            yield from (field.alias or name for name, field in model.model_fields.items())
            continue
        head, rest = str(location[0]), location[1:]
        if head in model.model_fields:
            yield from _inside(model.model_fields[head].annotation, rest)
        elif _tag_of(model) == head:
            # A discriminated union puts the tag into the location.
            yield from _fields_at(model, rest)


def _inside(annotation: object, location: tuple[str | int, ...]) -> Iterator[str]:
    origin = get_origin(annotation)
    if origin in (dict, list, tuple, Mapping):
        yield from _inside(get_args(annotation)[-1], location[1:])
    else:
        yield from _fields_at(annotation, location)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    if get_origin(annotation) is not None or isinstance(annotation, UnionType):
        for part in get_args(annotation):
            yield from _models(part)


def _tag_of(model: type[BaseModel]) -> str | None:
    kind: Any = model.model_fields.get("kind")
    return None if kind is None else str(kind.default)
