"""HTTP routes behind API keys. Handlers are wrapped once, when a door is made: without keys the
routes are what they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps

from actors.access.callers import ASKING, Asking, Callers, write_down
from actors.access.door import KeyedFrontDoor
from actors.extensions.offered import Offered
from actors.listeners.compression import expand
from actors.listeners.http_messages import (
    JSON,
    HttpReply,
    HttpRequest,
    HttpStream,
    error_reply,
)
from actors.listeners.http_routes import HttpRoutes
from actors.listeners.routes.openai.shape import openai_error
from actors.listeners.routes.table import Handler, Place, Route
from cluster.access.needs import Need, check_need, need_of_path
from cluster.errors import (
    CapacityError,
    Forbidden,
    NoReadyReplica,
    RateLimited,
    SquadronError,
    Unauthorized,
)

REQUEST_ID = "x-request-id"
AUTHORIZATION = "authorization"
CHALLENGE = ("WWW-Authenticate", 'Bearer realm="squadron"')
_NOT_READY = NoReadyReplica("not ready", retry_after_s=1)
_INFER = ("POST", "/v2/models/{model}/infer")


class KeyedHttpRoutes(HttpRoutes):
    """`HttpRoutes` of a door with keys."""

    def __init__(self, door: KeyedFrontDoor, offered: Offered, *, app: str) -> None:
        self._callers = door.callers
        super().__init__(door, offered, app=app)

    def _closed(self, routes: Sequence[Route]) -> list[Route]:
        limit = self._door.server.limits.max_body_bytes
        closed = [behind_key(each, self._callers, limit) for each in super()._closed(routes)]
        self._keyed_infer = next(
            each.answer for each in closed if (each.method, each.path) == _INFER
        )
        self._has_plain_infer = not self._door.server.restricted
        return closed

    def begin(
        self, request: HttpRequest, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        """Whoever is refused here is asked for again, and told why, by `answer`."""
        place = self._known.get(request.path)
        if place is None or place.methods.get(request.method) is not self._keyed_infer:
            return None
        if not self._has_plain_infer:
            return None
        try:
            caller = self._callers.caller(request.headers.get(AUTHORIZATION))
            check_need("the model", caller, place.model)
            self._callers.charge_request(caller)
        except SquadronError:
            return None
        token = ASKING.set(Asking(caller=caller))
        try:
            begun = self._begin(request, place, done)
        finally:
            ASKING.reset(token)
        if begun is None:
            self._callers.forget_request(caller)
        return begun


def behind_key(route: Route, callers: Callers, max_body_bytes: int) -> Route:
    """The route for callers whose key allows it. A body is expanded after that only."""
    need = need_of_path(route.method, route.path)
    if need == "nothing":
        return replace(route, answer=_reticent(route))
    answer = _checked(route, need, callers, max_body_bytes)
    return replace(route, answer=answer, takes_compressed=False)


def _checked(route: Route, need: Need, callers: Callers, max_body_bytes: int) -> Handler:
    shaped = _shape(route)
    changes = need == "admin" and route.method != "GET"

    @wraps(route.answer)
    async def checked(request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        caller = None
        try:
            caller = callers.caller(request.headers.get(AUTHORIZATION))
            check_need(need, caller, model_of(place))
            callers.charge_request(caller)
        except (Unauthorized, Forbidden, RateLimited) as error:
            callers.deny(error, caller)
            reply = shaped(error)
            if isinstance(error, Unauthorized):
                reply.headers = (*reply.headers, CHALLENGE)
            if request_id := request.headers.get(REQUEST_ID):
                reply.headers = (*reply.headers, (REQUEST_ID, request_id))
            return reply
        if changes:
            write_down(caller, f"{route.method} {request.path}")
        token = ASKING.set(Asking(caller=caller))
        try:
            if route.takes_compressed and "content-encoding" in request.headers:
                encoding = request.headers["content-encoding"]
                request.body = await expand(request.body, encoding, max_body_bytes)
                if request.reserve is not None:
                    request.reserve(len(request.body))
            return await route.answer(request, place)
        finally:
            ASKING.reset(token)

    return checked


def _reticent(route: Route) -> Handler:
    """For callers without a key: whether it works, not what is wrong with which model."""
    shaped = _shape(route)

    @wraps(route.answer)
    async def told(request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        try:
            reply = await route.answer(request, place)
        except CapacityError:
            return shaped(_NOT_READY)
        is_reason = isinstance(reply, HttpReply) and reply.content_type == JSON
        return shaped(_NOT_READY) if is_reason and reply.status >= 400 else reply

    return told


def _shape(route: Route) -> Callable[[SquadronError], HttpReply]:
    return openai_error if route.is_openai else error_reply


def model_of(place: Place) -> str:
    """The model named in a path; of `model:adapter`, the model."""
    return place.model or place.name.partition(":")[0]
