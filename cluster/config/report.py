"""Pydantic's complaints as one `ConfigError` that names file, key, value and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from cluster.config.section import Mistake, Mistakes
from cluster.errors import ConfigError

_ADDRESS_SECRET = re.compile(r"://[^\s'\"]*@")
"""Who logs in, and the password, in an address."""
_QUERY_SECRET = re.compile(r"(password=)[^\s&'\"]+")
Location = tuple[str | int, ...]


def explain(error: ValidationError, schema: type[BaseModel], source: str) -> ConfigError:
    """One line a mistake: `file: key.path: what is wrong (got value); allowed: …`."""
    mistakes = [mistake for detail in _own(error.errors()) for mistake in _read(detail, schema)]
    return explain_mistakes(mistakes, source)


def explain_mistakes(mistakes: Iterable[Mistake], source: str) -> ConfigError:
    """The error of mistakes that are known already, in the same words."""
    lines: list[str] = []
    first: dict[str, str] = {}
    for mistake in mistakes:
        value = _short(mistake.value)
        said = f"{source}: {mistake.key}: {mistake.text}"
        if value:
            said += f", got {value}"
        if mistake.allowed:
            said += f"; allowed: {mistake.allowed}"
        lines.append(said)
        told = {"file": source, "key": mistake.key, "value": value, "allowed": mistake.allowed}
        first = first or told
    return ConfigError("\n".join(lines), **first)


def _own(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without a list's complaint that it is too short when its items were refused."""
    return [
        detail
        for detail in details
        if detail["type"] != "too_short"
        or not any(_is_below(other["loc"], detail["loc"]) for other in details)
    ]


def _is_below(location: Location, other: Location) -> bool:
    return len(location) > len(other) and location[: len(other)] == other


def _read(detail: ErrorDetails, schema: type[BaseModel]) -> Iterator[Mistake]:
    location = _without_tags(schema, tuple(detail["loc"]))
    found = detail.get("ctx", {}).get("error")
    if isinstance(found, Mistakes):
        for mistake in found.mistakes:
            key = ".".join(map(str, (*location, mistake.key)))
            yield replace(mistake, key=key)
        return
    yield Mistake(
        key=".".join(map(str, location)) or "(top level)",
        text=_message(detail),
        value=_value(detail),
        allowed=_allowed(detail, schema),
    )


def _message(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "this key is required and missing"
        case "union_tag_not_found":
            return f"the key {detail['ctx']['discriminator']} is required and missing"
        case _:
            text = str(detail["msg"])
            return text.removeprefix("Value error, ")


def _value(detail: ErrorDetails) -> str:
    """Empty where it says nothing: a missing key, and a section whose keys do not fit each other
    (the message names them)."""
    is_section = detail["type"] == "value_error" and isinstance(detail["input"], Mapping)
    return "" if detail["type"] == "missing" or is_section else repr(detail["input"])


def _short(text: str) -> str:
    text = _QUERY_SECRET.sub(r"\1***", _ADDRESS_SECRET.sub("://***@", text))
    return text if len(text) <= 80 else text[:77] + "..."


def _allowed(detail: ErrorDetails, schema: type[BaseModel]) -> str:
    location = tuple(detail["loc"])
    if detail["type"] == "extra_forbidden":
        fields = sorted(set(_fields_at(schema, location[:-1])))
        near = difflib.get_close_matches(str(location[-1]), fields, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return ", ".join(fields) + hint
    context = detail.get("ctx", {})
    if detail["type"] == "union_tag_not_found":
        members = (member for inner in _walk(schema, location) for member in _members(inner))
        return ", ".join(sorted(tag for member in members if (tag := _tag_of(member))))
    limits = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    if "expected" in context:
        return str(context["expected"])
    if "expected_tags" in context:
        return str(context["expected_tags"])
    if "pattern" in context:
        return f"text matching {context['pattern']}"
    return " and ".join(f"{sign} {context[key]}" for key, sign in limits.items() if key in context)


def _fields_at(schema: object, location: Location) -> Iterator[str]:
    """The keys allowed at a place of the schema."""
    for inner in _walk(schema, location):
        for model in _models(inner):
            yield from (field.alias or name for name, field in model.model_fields.items())


def _without_tags(schema: object, location: Location) -> Location:
    """The place as the file has it: Pydantic also names the member of a union that it chose."""
    return tuple(
        part
        for index, part in enumerate(location)
        if not any(_tagged(inner, part) for inner in _walk(schema, location[:index]))
    )


def _walk(schema: object, location: Location) -> Iterator[object]:
    """What the schema has at a place; a union may have several."""
    if not location:
        yield schema
        return
    head, rest = location[0], location[1:]
    chosen = _tagged(schema, head)
    if chosen is not None:
        yield from _walk(chosen, rest)
        return
    for part in _members(schema):
        if isinstance(part, type) and issubclass(part, BaseModel):
            if head in part.model_fields:
                yield from _walk(part.model_fields[str(head)].annotation, rest)
        elif get_origin(part) in (dict, list, tuple, Mapping):
            (*_, inner) = (given for given in get_args(part) if given is not Ellipsis)
            yield from _walk(inner, rest)


def _tagged(schema: object, head: str | int) -> object | None:
    """The member of a discriminated union that goes by this tag."""
    members = tuple(_members(schema, keeps_tags=True))
    if len(members) < 2:
        return None
    return next((member for member in members if _tag_of(member) == head), None)


def _members(annotation: object, *, keeps_tags: bool = False) -> Iterator[object]:
    """A union's members one by one; anything else is its own only member."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *notes = get_args(annotation)
        if keeps_tags and any(isinstance(note, Tag) for note in notes):
            yield annotation
        else:
            yield from _members(inner, keeps_tags=keeps_tags)
    elif origin is Union or isinstance(annotation, UnionType):
        for part in get_args(annotation):
            yield from _members(part, keeps_tags=keeps_tags)
    else:
        yield annotation


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    for part in _members(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part


def _tag_of(member: object) -> str | None:
    if get_origin(member) is Annotated:
        return next(note.tag for note in get_args(member) if isinstance(note, Tag))
    kind: Any = getattr(member, "model_fields", {}).get("kind")
    return None if kind is None else str(kind.default)
