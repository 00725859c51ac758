"""The HTTP door without a server: a parsed request in, a reply out.

The own listener and Serve's ingress both call `HttpRoutes.answer`; neither knows a route.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

import orjson

from actors.console.routes import console_routes
from actors.descriptions import server_version
from actors.extensions.offered import Offered
from actors.front_door import FrontDoor
from actors.listeners.compression import MIN_COMPRESSED_BYTES, compress, expand
from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream, error_reply
from actors.listeners.restrict import Restrictions
from actors.listeners.routes.admin import AdminRoutes
from actors.listeners.routes.extensions import ExtensionRoutes
from actors.listeners.routes.generate import GenerateRoutes
from actors.listeners.routes.infer import InferRoutes
from actors.listeners.routes.jobs import JobRoutes
from actors.listeners.routes.management import ManagementRoutes
from actors.listeners.routes.openai.about import AboutRoutes
from actors.listeners.routes.openai.generation import GenerationRoutes
from actors.listeners.routes.openai.responses import ResponsesRoutes
from actors.listeners.routes.openai.shape import PREFIX as OPENAI
from actors.listeners.routes.openai.shape import openai_error
from actors.listeners.routes.openai.vectors import VectorRoutes
from actors.listeners.routes.quick_infer import QuickInfer
from actors.listeners.routes.shared_memory import SharedMemoryRoutes
from actors.listeners.routes.table import Place, Route, RouteTable
from cluster.errors import MethodNotAllowed, SquadronError
from cluster.protocols.extensions import openapi
from cluster.protocols.extensions.load_report import ANSWER_HEADER, REQUEST_HEADER, encode_load

logger = logging.getLogger("squadron.http")

MAX_KNOWN_PATHS = 4096
"""Paths whose place is remembered; callers could otherwise fill the memory with their own."""


_OF_THE_REQUEST = ("x-squadron-variant", "x-request-id")
"""Headers that an error in an answer's place has as well."""


class HttpRoutes:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor, offered: Offered, *, app: str) -> None:
        self._door = door
        self._known: dict[str, Place] = {}
        self._compressing: set[asyncio.Task[HttpReply]] = set()
        about = Route(
            method="GET", path="/openapi.json", answer=self._openapi, summary="This document"
        )
        infer = InferRoutes(door, offered.shared_memory)
        infer_routes = infer.routes()
        generation = GenerationRoutes(door, infer)
        self._quick = QuickInfer(door, infer)
        self._infer_handler = infer_routes[0].answer
        routes = [
            *infer_routes,
            *GenerateRoutes(door, infer).routes(),
            *ManagementRoutes(door, offered, app=app).routes(),
            *ExtensionRoutes(offered).routes(),
            *SharedMemoryRoutes(offered.shared_memory).routes(),
            *AdminRoutes(door, offered.controller, app=app).routes(),
            *JobRoutes(door, offered.jobs).routes(),
            *generation.routes(),
            *ResponsesRoutes(generation).routes(),
            *VectorRoutes(door, infer).routes(),
            *AboutRoutes(door).routes(),
            *console_routes(),
            about,
        ]
        self.table = RouteTable(self._closed(routes), base_path=door.server.base_path)
        self._take_as_sent = self.table.as_sent()

    def _closed(self, routes: Sequence[Route]) -> list[Route]:
        """The routes, those that not everybody may use behind what asks for a key."""
        return Restrictions(self._door.server.restricted).routes(routes)

    async def answer(self, request: HttpRequest) -> HttpReply | HttpStream:
        """Never raises: every error has the protocol's shape; a bug is a 500 without details."""
        is_openai = request.path.startswith(OPENAI) or request.path + "/" == OPENAI
        try:
            place = self._known.get(request.path) or self._place(request.path)
            is_openai = place.is_openai
            handler = place.methods.get(request.method)
            if handler is None and request.method == "HEAD":
                handler = place.methods.get("GET")
            if handler is None:
                raise MethodNotAllowed("Method Not Allowed", allow=", ".join(place.methods))
            headers = request.headers
            if "content-encoding" in headers and handler not in self._take_as_sent:
                limit = self._door.server.limits.max_body_bytes
                request.body = await expand(request.body, headers["content-encoding"], limit)
                if request.reserve is not None:
                    request.reserve(len(request.body))
            reply = await handler(request, place)
            if request.method == "POST" and isinstance(reply, HttpReply):
                reply = self._checked(reply, is_openai=is_openai)
            if REQUEST_HEADER in headers:
                self._report_load(reply, place, headers[REQUEST_HEADER])
            if "accept-encoding" in headers and isinstance(reply, HttpReply):
                return await compress(reply, headers["accept-encoding"])
            return reply
        except SquadronError as error:
            return openai_error(error) if is_openai else error_reply(error)
        except Exception:
            logger.exception("a request failed with a bug of ours")
            bug = SquadronError("internal error")
            return openai_error(bug) if is_openai else error_reply(bug)

    def begin(
        self, request: HttpRequest, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        """Inference as most callers ask for it; see `Answers.begin`."""
        place = self._known.get(request.path)
        if place is None or place.methods.get(request.method) is not self._infer_handler:
            return None
        return self._begin(request, place, done)

    def _begin(
        self, request: HttpRequest, place: Place, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        if "content-encoding" in request.headers or REQUEST_HEADER in request.headers:
            return None
        accepted = request.headers.get("accept-encoding")
        if accepted is not None:
            done = partial(self._compress_large, accepted, done)
        return self._quick.begin(request, place, done)

    def _checked(self, reply: HttpReply, *, is_openai: bool) -> HttpReply:
        """An error in place of what is too large, of what models answer: a scrape is as large as it
        is. Of streams each part is looked at where its error can still be told as one."""
        told = tuple(each for each in reply.headers if each[0].lower() in _OF_THE_REQUEST)
        try:
            variant = dict(told).get("x-squadron-variant", "")
            self._door.answer_sizes.check(reply.num_bytes, variant)
        except SquadronError as error:
            return openai_error(error, told) if is_openai else error_reply(error, told)
        return reply

    def _report_load(self, reply: HttpReply | HttpStream, place: Place, form: str) -> None:
        told = encode_load(self._door.load_of(place.model), form)
        if told is not None:
            reply.headers = (*reply.headers, (ANSWER_HEADER, told))

    def _compress_large(
        self, accepted: str, done: Callable[[HttpReply], None], reply: HttpReply
    ) -> None:
        if reply.num_bytes < MIN_COMPRESSED_BYTES:
            done(reply)
            return
        task = asyncio.get_running_loop().create_task(compress(reply, accepted))
        self._compressing.add(task)
        task.add_done_callback(self._compressing.discard)
        task.add_done_callback(lambda task: done(task.result()))

    def _place(self, path: str) -> Place:
        """Raises: UnknownRoute."""
        place = self.table.find(path)
        if len(self._known) < MAX_KNOWN_PATHS and place.model in self._door.table.routes:
            self._known[path] = place
        return place

    async def _openapi(self, request: HttpRequest, place: Place) -> HttpReply:
        described = openapi.document(
            self._door.server.name,
            server_version(self._door),
            self.table.operations(),
            base_path=self._door.server.base_path,
        )
        return HttpReply(status=200, chunks=(orjson.dumps(described),))
