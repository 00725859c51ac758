"""Open Inference Protocol V2 over HTTP, without a server: a parsed request in, a reply out.

The own listener and Serve's ingress both call `HttpRoutes.answer`; neither knows a route.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote

import orjson

from actors.descriptions import describe_model, describe_server, repository_index
from actors.front_door import FrontDoor
from actors.listeners.http_messages import JSON, HttpReply, HttpRequest, error_reply
from cluster.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NoReadyReplica,
    SquadronError,
    UnknownRoute,
)
from cluster.observability import metrics as metrics_text
from cluster.protocols import v2_json, v2_model
from cluster.requests import InferenceRequest

logger = logging.getLogger("squadron.http")

_CONTEXT_HEADERS = frozenset({"x-request-id", "x-squadron-tenant", "traceparent"})
MAX_KNOWN_PATHS = 4096
"""Paths whose place is remembered; callers could otherwise fill the memory with their own."""

Handler = Callable[[HttpRequest, "_Place"], Awaitable[HttpReply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What the path says: the model and the version, when there are any."""

    model: str = ""
    version: str = ""
    methods: Mapping[str, Handler] = field(default_factory=dict)


class HttpRoutes:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor, *, app: str, metrics_folder: Path) -> None:
        self._door = door
        self._app = app
        self._metrics_folder = metrics_folder
        self._known: dict[str, _Place] = {}
        self._fixed: dict[str, Mapping[str, Handler]] = {
            "/": {"GET": self._welcome},
            "/v2": {"GET": self._server},
            "/v2/health/live": {"GET": self._live},
            "/v2/health/ready": {"GET": self._ready},
            "/v2/repository/index": {"POST": self._index},
            "/metrics": {"GET": self._metrics},
            "/-/healthz": {"GET": self._healthz},
            "/-/routes": {"GET": self._routes},
        }
        self._of_model: dict[str, Mapping[str, Handler]] = {
            "": {"GET": self._model},
            "ready": {"GET": self._model_ready},
            "config": {"GET": self._config},
            "infer": {"POST": self._infer},
        }

    async def answer(self, request: HttpRequest) -> HttpReply:
        """Never raises: every error has the protocol's shape; a bug is a 500 without details."""
        try:
            place = self._known.get(request.path) or self._place(request.path)
            handler = place.methods.get(request.method)
            if handler is None and request.method == "HEAD":
                handler = place.methods.get("GET")
            if handler is None:
                raise MethodNotAllowed("Method Not Allowed", allow=", ".join(place.methods))
            return await handler(request, place)
        except SquadronError as error:
            return error_reply(error)
        except Exception:
            logger.exception("a request failed with a bug of ours")
            return error_reply(SquadronError("internal error"))

    def _place(self, path: str) -> _Place:
        """Raises: UnknownRoute."""
        place = self._found(path)
        if len(self._known) < MAX_KNOWN_PATHS and place.model in self._door.table.routes:
            self._known[path] = place
        return place

    def _found(self, path: str) -> _Place:
        trimmed = path.rstrip("/") or "/"
        fixed = self._fixed.get(trimmed)
        if fixed is not None:
            return _Place(methods=fixed)
        parts = [unquote(part) for part in trimmed.split("/")[1:]]
        match parts:
            case ["v2", "models", model]:
                return _Place(model=model, methods=self._of_model[""])
            case ["v2", "models", model, "versions", version]:
                return _Place(model=model, version=version, methods=self._of_model[""])
            case ["v2", "models", model, action] if action in self._of_model:
                return _Place(model=model, methods=self._of_model[action])
            case ["v2", "models", model, "versions", version, action] if action in self._of_model:
                methods = self._of_model[action]
                return _Place(model=model, version=version, methods=methods)
            case _:
                raise UnknownRoute("Not Found")

    async def _infer(self, request: HttpRequest, place: _Place) -> HttpReply:
        route = self._door.route(place.model, place.version)
        if "content-encoding" in request.headers:
            _check_encoding(request.headers["content-encoding"])
        json_length = _json_length(request.headers)
        if json_length == 0 or (json_length is None and _is_raw(request)):
            asked = v2_json.decode_raw(request.body, place.model, place.version, route.signature)
        else:
            asked = v2_json.decode_infer(
                request.body, json_length=json_length, model=place.model, version=place.version
            )
        asked = self._with_headers(asked, request.headers)
        answer = await self._door.infer(asked)
        # A raw body with the binary header asks for Triton's raw answer; without it, for JSON.
        encoded = v2_json.encode_infer(
            answer,
            asked,
            binary_default=json_length == 0,
            class_labels=self._labels(asked),
        )
        headers = [("x-squadron-variant", answer.variant)]
        if encoded.json_length is not None:
            headers.append(("Inference-Header-Content-Length", str(encoded.json_length)))
        return HttpReply(
            status=200,
            chunks=tuple(encoded.chunks),
            content_type=encoded.content_type,
            headers=tuple(headers),
        )

    def _labels(self, asked: InferenceRequest) -> Mapping[str, Sequence[str]]:
        if not any(output.num_classes for output in asked.outputs):
            return {}
        return self._door.class_labels(asked.model)

    def _with_headers(
        self, asked: InferenceRequest, headers: Mapping[str, str]
    ) -> InferenceRequest:
        sticky = self._door.sticky_header(asked.model) or "x-squadron-user"
        if sticky not in headers and _CONTEXT_HEADERS.isdisjoint(headers):
            return asked
        return replace(
            asked,
            request_id=asked.request_id or headers.get("x-request-id", ""),
            affinity_key=headers.get(sticky, ""),
            tenant=headers.get("x-squadron-tenant", ""),
            trace_parent=headers.get("traceparent", ""),
        )

    async def _welcome(self, request: HttpRequest, place: _Place) -> HttpReply:
        return _json(
            {
                "server": self._door.server.name,
                "models": sorted(self._door.table.routes),
                "try": "/v2, /v2/health/ready, /v2/models/{model}, POST /v2/models/{model}/infer, "
                "/metrics",
            }
        )

    async def _server(self, request: HttpRequest, place: _Place) -> HttpReply:
        return _json(describe_server(self._door))

    async def _live(self, request: HttpRequest, place: _Place) -> HttpReply:
        return _json({"live": True})

    async def _ready(self, request: HttpRequest, place: _Place) -> HttpReply:
        reasons = self._door.not_ready()
        if reasons:
            raise NoReadyReplica("server is not ready: " + "; ".join(reasons), retry_after_s=1)
        return _json({"ready": True})

    async def _index(self, request: HttpRequest, place: _Place) -> HttpReply:
        return _json(repository_index(self._door, only_ready=_wants_ready(request.body)))

    async def _model(self, request: HttpRequest, place: _Place) -> HttpReply:
        described = describe_model(self._door, place.model, place.version)
        return _json(v2_model.model_metadata(described))

    async def _config(self, request: HttpRequest, place: _Place) -> HttpReply:
        described = describe_model(self._door, place.model, place.version)
        return _json(v2_model.model_config(described))

    async def _model_ready(self, request: HttpRequest, place: _Place) -> HttpReply:
        self._door.route(place.model, place.version)
        state, reason = self._door.table.state_of(place.model)
        if state != "READY":
            raise NoReadyReplica(
                f"model '{place.model}' is not ready: {state}: {reason}", retry_after_s=1
            )
        return _json({"name": place.model, "ready": True})

    async def _metrics(self, request: HttpRequest, place: _Place) -> HttpReply:
        text = await asyncio.to_thread(metrics_text.aggregate, self._metrics_folder)
        return HttpReply(status=200, chunks=(text,), content_type=metrics_text.CONTENT_TYPE)

    async def _healthz(self, request: HttpRequest, place: _Place) -> HttpReply:
        """As Serve's proxies answer, so that KubeRay's probes hold."""
        if self._door.is_draining:
            return HttpReply(status=503, chunks=(b"draining",), content_type="text/plain")
        return HttpReply(status=200, chunks=(b"success",), content_type="text/plain")

    async def _routes(self, request: HttpRequest, place: _Place) -> HttpReply:
        return _json({"/": self._app})


def _json(content: object) -> HttpReply:
    return HttpReply(status=200, chunks=(orjson.dumps(content),))


def _json_length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("inference-header-content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InvalidRequest(
            f"header Inference-Header-Content-Length must be a whole number >= 0, got {text[:40]!r}"
        )
    return int(text)


def _is_raw(request: HttpRequest) -> bool:
    """A body that is no JSON, from a caller that did not say it were: a file, sent as it is.

    `curl --data-binary @photo.jpg` sends its own form content type, so the body decides.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() == JSON:
        return False
    return request.body.lstrip()[:1] not in (b"{", b"")


def _check_encoding(encoding: str) -> None:
    if encoding.strip().lower() != "identity":
        raise InvalidRequest(f"content encoding {encoding!r} is not supported; allowed: identity")


def _wants_ready(body: bytes) -> bool:
    if not body.strip():
        return False
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"failed to parse the request JSON: {error}") from None
    return isinstance(content, dict) and content.get("ready") is True
