"""Every key of a configuration, read from the sections themselves: what it takes, its default."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import orjson
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}
_PLAIN = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """`takes`: type, choices and bounds in words; `default`: as YAML, empty where it must be
    given; `section`: the path of what stands below it."""

    name: str
    takes: str
    default: str
    section: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionReference:
    """One section. In `path`, `<name>` stands for a name of the user's and `<index>` for a place in
    a list. `text`: what its own documentation says of the keys."""

    path: str
    text: str
    keys: tuple[Key, ...]


def reference(
    root: type[BaseModel], path: str = "", given: BaseModel | None = None
) -> Iterator[SectionReference]:
    """The section and all below it, in the order of their keys. `given`: what it is where the file
    leaves it out, whose values are its keys' defaults."""
    below: list[tuple[type[BaseModel], str, BaseModel | None]] = []
    keys = []
    for attribute, field in root.model_fields.items():
        name = field.alias or attribute
        default = field.get_default(call_default_factory=True) if not given else None
        value = getattr(given, attribute) if given else default
        inside = list(_sections(field.annotation, f"{path}.{name}".lstrip(".")))
        usual = value if isinstance(value, BaseModel) else None
        below += [(section, its_path, usual) for section, its_path in inside]
        keys.append(
            Key(
                name=name,
                takes=_takes(field),
                default="" if field.is_required() and not given else _as_yaml(value),
                section=inside[0][1] if inside else "",
            )
        )
    text = inspect.cleandoc(root.__doc__ or "")
    yield SectionReference(path=path, text=text, keys=tuple(keys))
    for section, its_path, usual in below:
        yield from reference(section, its_path, usual)


def as_markdown(sections: AbstractSequence[SectionReference]) -> str:
    """One heading a section, one row a key."""
    parts = []
    for section in sections:
        parts.append(f"## {f'`{section.path}`' if section.path else 'The file (`args:`)'}\n")
        parts.append(section.text + "\n")
        rows = [
            f"| `{key.name}` | {key.takes.replace('|', '&#124;')} | {_marked(key.default)} |"
            for key in section.keys
        ]
        parts.append("\n".join(["| key | takes | default |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _marked(default: str) -> str:
    if default in ("none", "see below"):
        return default
    return f"`{default}`" if default else "must be given"


def _sections(annotation: Any, path: str) -> Iterator[tuple[type[BaseModel], str]]:
    """The sections within a key's type, each with its path. Kinds of one thing share a path."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation, path
    elif origin is Annotated:
        yield from _sections(inside[0], path)
    elif inspect.isclass(origin) and issubclass(origin, Mapping):
        yield from _sections(inside[1], f"{path}.<name>")
    elif origin in (tuple, list):
        yield from _sections(inside[0], f"{path}.<index>")
    elif origin in (Union, types.UnionType):
        for one in inside:
            yield from _sections(one, path)


def _takes(field: FieldInfo) -> str:
    bounds = [
        text.format(f"{value:g}" if isinstance(value, float) else value)
        for item in field.metadata
        for name, text in _BOUNDS.items()
        if (value := getattr(item, name, None)) is not None
    ]
    return ", ".join([_named(field.annotation), *bounds])


def _named(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "nothing"
    if origin is Annotated:
        return _named(inside[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_named(one) for one in inside if one is not type(None)))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"name: {_named(inside[1])}"
    if origin in (tuple, list, set, frozenset):
        return f"list of {_named(inside[0])}"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "section"
    return _PLAIN.get(getattr(annotation, "__name__", ""), getattr(annotation, "__name__", "any"))


def _as_yaml(value: object) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, set | frozenset):
        value = sorted(value)
    return orjson.dumps(value, default=str).decode() if value is not None else "none"
