"""Has a class the methods of a model: read from its text, as the code is run only where it is
served."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from cluster.errors import ConfigError

CONTRACT = "load(self, context), and infer(self, inputs) or stream(self, inputs, parameters)"


def check_methods(text: str, class_name: str, what: str) -> bool:
    """Whether the class streams: it has `stream` and no `infer`.

    A class with a base from elsewhere is believed: the base may have the methods.

    Raises: ConfigError naming the method that is missing.
    """
    classes = {node.name: node for node in _tree(text, what).body if isinstance(node, ast.ClassDef)}
    if class_name not in classes:
        raise ConfigError(f"{what}: no class {class_name} in this file", file=what)
    found = set(_methods(class_name, classes))
    if "*" in found:
        return False
    for wanted in (("load",), ("infer", "stream")):
        if not found.intersection(wanted):
            said = " or ".join(repr(name) for name in wanted)
            raise ConfigError(
                f"{what}: class {class_name} has no method {said}; a model has {CONTRACT}",
                file=what,
                key="python_class",
                value=class_name,
                allowed=CONTRACT,
            )
    return "infer" not in found


def _tree(text: str, what: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(f"{what}: line {error.lineno}: {error.msg}", file=what) from None


def _methods(name: str, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    """The names that the class and its bases define; `*` for a base that is not in the file."""
    own = classes[name]
    for node in own.body:
        match node:
            case ast.FunctionDef(name=method) | ast.AsyncFunctionDef(name=method):
                yield method
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
    for base in own.bases:
        match base:
            case ast.Name(id="object"):
                pass
            case ast.Name(id=other) if other in classes and other != name:
                yield from _methods(other, classes)
            case _:
                yield "*"
