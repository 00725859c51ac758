"""What may be changed at run time over HTTP: the repository, trace and logging settings."""

from __future__ import annotations

from typing import Any, NoReturn

import orjson

from actors.extensions.offered import Offered
from actors.listeners.guard import guarded
from actors.listeners.http_messages import HttpReply, HttpRequest, json_reply
from actors.listeners.routes.table import Handler, Place, Route
from cluster.errors import InvalidRequest, Unsupported
from cluster.protocols.extensions.repository import decode_load, decode_unload


class ExtensionRoutes:
    """Bound to one door's extensions."""

    def __init__(self, offered: Offered) -> None:
        self._offered = offered

    def routes(self) -> list[Route]:
        trace, model_trace = "/v2/trace/setting", "/v2/models/{model}/trace/setting"
        return [
            _get(trace, self._trace, "Trace settings"),
            _post(trace, self._change_trace, "Change the trace settings"),
            _get(model_trace, self._trace, "A model's trace settings"),
            _post(model_trace, self._change_trace, "Change a model's trace settings"),
            _get("/v2/logging", self._log, "Logging settings"),
            _post("/v2/logging", self._change_log, "Change the logging settings"),
            *self._repository(),
        ]

    def _repository(self) -> list[Route]:
        found = [_post("/v2/repository/{name}/index", self._named, "The index of one repository")]
        for verb, answer in (("load", self._load), ("unload", self._unload)):
            of_all = f"/v2/repository/models/{{model}}/{verb}"
            of_one = f"/v2/repository/{{name}}/models/{{model}}/{verb}"
            found.append(_post(of_all, answer, f"{verb.capitalize()} a model"))
            found.append(_post(of_one, self._named, f"{verb.capitalize()} from one repository"))
        return found

    async def _trace(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(self._offered.settings.trace(place.model))

    async def _change_trace(self, request: HttpRequest, place: Place) -> HttpReply:
        changes = json_object(request.body)
        return json_reply(self._offered.settings.change_trace(changes, place.model))

    async def _log(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(self._offered.settings.log.as_json())

    async def _change_log(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(self._offered.settings.change_log(json_object(request.body)).as_json())

    async def _load(self, request: HttpRequest, place: Place) -> HttpReply:
        config, files = decode_load(json_object(request.body))
        await self._offered.repository.load(place.model, config, files)
        return json_reply({})

    async def _unload(self, request: HttpRequest, place: Place) -> HttpReply:
        with_dependents = decode_unload(json_object(request.body))
        await self._offered.repository.unload(place.model, with_dependents=with_dependents)
        return json_reply({})

    async def _named(self, request: HttpRequest, place: Place) -> NoReturn:
        raise Unsupported("'repository_name' specification is not supported")


def _get(path: str, answer: Handler, summary: str) -> Route:
    return Route(method="GET", path=path, answer=answer, summary=summary, gives="Settings")


def _post(path: str, answer: Handler, summary: str) -> Route:
    return Route(
        method="POST",
        path=path,
        answer=guarded(answer),
        summary=summary,
        takes="Settings",
        gives="Settings",
    )


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in the body; none counts as empty. Raises: InvalidRequest."""
    if not body.strip():
        return {}
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"failed to parse the request JSON: {error}") from None
    if not isinstance(content, dict):
        raise InvalidRequest("the request JSON must be an object")
    return content
