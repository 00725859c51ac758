"""What operators and monitoring ask over HTTP: health, metadata, metrics, statistics."""

from __future__ import annotations

import asyncio

import orjson

from actors.descriptions import describe_model, describe_server, repository_index
from actors.extensions.offered import Offered
from actors.front_door import FrontDoor
from actors.listeners.http_messages import JSON, HttpReply, HttpRequest, json_reply
from actors.listeners.routes.table import Handler, Place, Route
from cluster.errors import InvalidRequest, NoReadyReplica, SquadronError
from cluster.observability import metrics as metrics_text
from cluster.protocols import v2_model
from cluster.protocols.extensions.statistics import statistics_json
from cluster.protocols.v2_fields import shown


class ManagementRoutes:
    """Bound to one front door. `app` is the Serve application the door belongs to."""

    def __init__(self, door: FrontDoor, offered: Offered, *, app: str) -> None:
        self._door = door
        self._offered = offered
        self._app = app

    def routes(self) -> list[Route]:
        return [*self._of_server(), *self._of_models()]

    def _of_server(self) -> list[Route]:
        text, metrics = "text/plain", metrics_text.CONTENT_TYPE
        return [
            _get("/", self._welcome, "What this is"),
            _get("/v2", self._server, "Server metadata", gives="Server"),
            _get("/v2/health/live", self._live, "Whether the server runs", gives="Live"),
            _get("/v2/health/ready", self._ready, "Whether it can serve", gives="Ready"),
            _get("/metrics", self._metrics, "The node's metrics", gives="Text", media=metrics),
            _get("/-/healthz", self._healthz, "Ray Serve's probe", gives="Text", media=text),
            _get("/-/routes", self._routes, "Ray Serve's route list"),
            Route(
                method="POST",
                path="/v2/repository/index",
                answer=self._index,
                summary="Every model and its state",
                takes="IndexRequest",
                gives="Index",
            ),
        ]

    def _of_models(self) -> list[Route]:
        model = "/v2/models/{model}"
        return [
            _get("/v2/models/stats", self._statistics, "Statistics of all", gives="Statistics"),
            _of_model(model, self._model, "Model metadata", "Model"),
            _of_model(f"{model}/ready", self._model_ready, "Whether it can serve", "ModelReady"),
            _of_model(f"{model}/config", self._config, "Model configuration", "Object"),
            _of_model(f"{model}/stats", self._statistics, "Statistics", "Statistics"),
        ]

    async def _welcome(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(
            {
                "server": self._door.server.name,
                "models": sorted(self._door.table.routes),
                "try": "/v2, /v2/health/ready, /v2/models/{model}, POST /v2/models/{model}/infer, "
                "/metrics, /openapi.json",
            }
        )

    async def _server(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(describe_server(self._door))

    async def _live(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply({"live": True})

    async def _ready(self, request: HttpRequest, place: Place) -> HttpReply:
        reasons = self._door.not_ready()
        if reasons:
            raise NoReadyReplica("server is not ready: " + "; ".join(reasons), retry_after_s=1)
        return json_reply({"ready": True})

    async def _index(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(repository_index(self._door, only_ready=_wants_ready(request.body)))

    async def _model(self, request: HttpRequest, place: Place) -> HttpReply:
        described = describe_model(self._door, place.model, place.version)
        return json_reply(v2_model.model_metadata(described))

    async def _config(self, request: HttpRequest, place: Place) -> HttpReply:
        described = describe_model(self._door, place.model, place.version)
        return json_reply(v2_model.model_config(described))

    async def _model_ready(self, request: HttpRequest, place: Place) -> HttpReply:
        name = place.model
        if name not in self._door.table.unloaded:
            name = self._door.route(place.model, place.version).name
        state, reason = self._door.table.state_of(name)
        if state != "READY":
            raise NoReadyReplica(
                f"model '{place.model}' is not ready: {state}: {reason}", retry_after_s=1
            )
        return json_reply({"name": place.model, "ready": True})

    async def _statistics(self, request: HttpRequest, place: Place) -> HttpReply:
        found = await self._offered.statistics.of(place.model, place.version)
        return json_reply(statistics_json(found))

    async def _metrics(self, request: HttpRequest, place: Place) -> HttpReply:
        self._door.write_counts()
        folder = self._offered.metrics_folder
        devices = self._offered.devices
        text = await asyncio.to_thread(metrics_text.aggregate, folder, devices)
        return HttpReply(status=200, chunks=(text,), content_type=metrics_text.CONTENT_TYPE)

    async def _healthz(self, request: HttpRequest, place: Place) -> HttpReply:
        """As Serve's proxies answer, so that KubeRay's probes hold; true of the whole replica."""
        if self._door.is_draining:
            return HttpReply(status=503, chunks=(b"draining",), content_type="text/plain")
        try:
            self._door.check_health()
        except SquadronError:
            # What stopped stands in Serve's log: the probe is open to everybody.
            return HttpReply(status=503, chunks=(b"unhealthy",), content_type="text/plain")
        return HttpReply(status=200, chunks=(b"success",), content_type="text/plain")

    async def _routes(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply({"/": self._app})


def _get(
    path: str, answer: Handler, summary: str, gives: str = "Object", media: str = JSON
) -> Route:
    return Route(
        method="GET", path=path, answer=answer, summary=summary, gives=gives, answers_with=media
    )


def _of_model(path: str, answer: Handler, summary: str, gives: str) -> Route:
    return Route(
        method="GET", path=path, answer=answer, summary=summary, gives=gives, is_of_model=True
    )


def _wants_ready(body: bytes) -> bool:
    if not body.strip():
        return False
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"failed to parse the request JSON: {error}") from None
    if not isinstance(content, dict):
        raise InvalidRequest("the request JSON must be an object")
    ready = content.get("ready", False)
    if not isinstance(ready, bool):
        raise InvalidRequest(f"'ready' must be true or false, got {shown(ready)}")
    return ready
