"""Every HTTP route once: what answers it, and what `/openapi.json` says of it.

A template is a path with names in braces, `/v2/models/{model}/infer`. With `is_of_model` the same
route exists with a version: `/v2/models/{model}/versions/{version}/infer`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream
from cluster.errors import UnknownRoute
from cluster.protocols.extensions.openapi import Operation, is_probe

_MODEL = "/v2/models/{model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a path says: the model and the version or another name, and what answers there.
    `is_openai`: errors in its shape."""

    model: str = ""
    version: str = ""
    name: str = ""
    methods: Mapping[str, Handler] = field(default_factory=dict)
    is_openai: bool = False


Handler = Callable[[HttpRequest, Place], Awaitable[HttpReply | HttpStream]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """`answers_with`: the media type of a good answer. `takes`, `gives`: schema names. Without
    `takes_compressed` the body is handed over as it was sent. `is_openai`: errors in its shape."""

    method: str
    path: str
    answer: Handler
    summary: str
    takes: str = ""
    gives: str = "Object"
    answers_with: str = "application/json"
    takes_compressed: bool = True
    is_openai: bool = False
    is_of_model: bool = False

    def paths(self) -> tuple[str, ...]:
        if not self.is_of_model:
            return (self.path,)
        return (self.path, self.path.replace(_MODEL, f"{_MODEL}/versions/{{version}}"))


class RouteTable:
    """Finds the place of a path. Fixed paths go before those with names."""

    def __init__(self, routes: Iterable[Route], *, base_path: str = "") -> None:
        """`base_path` begins every path but the probes'."""
        self._routes = tuple(routes)
        self._base_path = base_path
        self._fixed: dict[str, dict[str, Handler]] = {}
        self._named: dict[tuple[str, ...], dict[str, Handler]] = {}
        self._openai = {route.path for route in self._routes if route.is_openai}
        for route in self._routes:
            for path in route.paths():
                parts = tuple(path.split("/")[1:])
                if "{" in path:
                    self._named.setdefault(parts, {})[route.method] = route.answer
                else:
                    self._fixed.setdefault(path, {})[route.method] = route.answer

    def find(self, path: str) -> Place:
        """Raises: UnknownRoute."""
        if self._base_path and not is_probe(path):
            if path != self._base_path and not path.startswith(self._base_path + "/"):
                raise UnknownRoute("Not Found")
            path = path[len(self._base_path) :]
        trimmed = path.rstrip("/") or "/"
        fixed = self._fixed.get(trimmed)
        if fixed is not None:
            return Place(methods=fixed, is_openai=trimmed in self._openai)
        parts = trimmed.split("/")[1:]
        for template, methods in self._named.items():
            names = _names(template, parts)
            if names is not None:
                is_openai = "/".join(("", *template)) in self._openai
                return Place(methods=methods, is_openai=is_openai, **names)
        raise UnknownRoute("Not Found")

    def as_sent(self) -> frozenset[Handler]:
        """Handlers that take a body as it was sent."""
        return frozenset(route.answer for route in self._routes if not route.takes_compressed)

    def operations(self) -> list[Operation]:
        """What `/openapi.json` lists: each route at each of its paths."""
        return [
            Operation(
                method=route.method,
                path=path,
                summary=route.summary,
                takes=route.takes,
                gives=route.gives,
                answers_with=route.answers_with,
                is_openai=route.is_openai,
            )
            for route in self._routes
            for path in route.paths()
        ]


def _names(template: tuple[str, ...], parts: list[str]) -> dict[str, str] | None:
    """The values of the names in the template, None when the path does not fit it."""
    if len(template) != len(parts):
        return None
    found: dict[str, str] = {}
    for wanted, part in zip(template, parts, strict=True):
        if wanted.startswith("{"):
            found[wanted[1:-1]] = unquote(part)
        elif wanted != part:
            return None
    return found
