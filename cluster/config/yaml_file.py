"""YAML in and out, with errors that name the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cluster.config.report import explain
from cluster.errors import ConfigError

S = TypeVar("S", bound=BaseModel)

MERGE = "tag:yaml.org,2002:merge"


def read_mapping(path: Path) -> dict[str, object]:
    """The mapping at the top of a YAML file.

    Raises: ConfigError when the file is missing or cannot be read, is not YAML, or holds something
    else.
    """
    text = read_text(path)
    try:
        loaded = parse_yaml(text)
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
    # See `parse_yaml`.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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
    try:
        return yaml.load(text, Loader=_NoDuplicates)
    except (ValueError, RecursionError) as error:
        # Of a date such as 2026-13-01, which PyYAML hands on, and of a thousand brackets.
        raise yaml.YAMLError(str(error)) from None


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
    """PyYAML keeps the last of two equal keys in silence; a config must not. A key beside a merge
    (`<<: *anchor`) is no duplicate: it stands for the merged one."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._flat: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """PyYAML's hook for merges: once for each mapping, when it is made or merged into another
        one, whichever is first."""
        if node in self._flat:
            return
        self._flat.add(node)
        self._check_keys(node)
        # PyYAML puts what is merged before the mapping's own keys.
        super().flatten_mapping(node)
        # One entry a key, or mappings that merge each other twice would double with each level.
        node.value = list({self._key(entry[0]): entry for entry in node.value}.values())

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[object] = set()
        for key_node, _ in node.value:
            is_merge = key_node.tag == MERGE
            key = "<<" if is_merge else self._key(key_node)
            if key in seen:
                hint = "; allowed: one, with a list: <<: [*first, *second]" if is_merge else ""
                raise _mistake(f"key {key!r} appears twice{hint}", key_node)
            seen.add(key)

    def _key(self, key_node: yaml.Node) -> object:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _mistake("a key is a list or a mapping; allowed: text or a number", key_node)
        key: object = self.construct_object(key_node, deep=True)
        return key


def _mistake(text: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)
