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
    text = read_text(path)
    try:
        loaded = yaml.load(text, Loader=_NoDuplicates)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}", file=str(path)) from None
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{path}: expected keys and values at the top, got {type(loaded).__name__}",
            file=str(path),
        )
    return loaded


def read_documents(path: Path) -> list[dict[str, object]]:
    """The mappings of a YAML file, one a document, as `kubectl get -o yaml` writes them.

    Raises: ConfigError when the file is missing, is not YAML, or holds something else.
    """
    text = read_text(path)
    try:
        found = [each for each in yaml.load_all(text, Loader=_NoDuplicates) if each is not None]
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}", file=str(path)) from None
    for each in found:
        if not isinstance(each, dict):
            raise ConfigError(
                f"{path}: expected documents of keys and values, got {type(each).__name__}",
                file=str(path),
            )
    return found


def read_text(path: Path) -> str:
    """Raises: ConfigError with what hinders it."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", file=str(path)) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", file=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text", file=str(path)) from None


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
