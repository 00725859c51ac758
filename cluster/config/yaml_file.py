"""YAML in and out, with errors that name the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cluster.config.report import explain
from cluster.errors import ConfigError

S = TypeVar("S", bound=BaseModel)


def read_mapping(path: Path) -> dict[str, object]:
    """The mapping at the top of a YAML file.

    Raises: ConfigError when the file is missing, is not YAML, or holds something else.
    """
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_NoDuplicates)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", file=str(path)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}", file=str(path)) from None
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{path}: expected keys and values at the top, got {type(loaded).__name__}",
            file=str(path),
        )
    return loaded


def parse_yaml(text: str) -> object:
    """What the text holds, keys that appear twice refused. Raises: yaml.YAMLError."""
    return yaml.load(text, Loader=_NoDuplicates)


def read_section(path: Path, schema: type[S]) -> S:
    """One YAML file as a frozen section."""
    return check_section(read_mapping(path), schema, source=str(path))


def check_section(mapping: object, schema: type[S], *, source: str) -> S:
    """A mapping as a frozen section. Raises: ConfigError naming every mistake, one a line."""
    try:
        return schema.model_validate(mapping)
    except ValidationError as error:
        raise explain(error, schema, source) from None


class _NoDuplicates(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; a config must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
