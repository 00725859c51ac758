"""`/v1/responses` at the door: asked for as a chat, and told in the shape of that API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import orjson

from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream
from actors.listeners.routes.openai.generation import GenerationRoutes
from actors.listeners.routes.openai.shape import Told, check_json, described
from actors.listeners.routes.table import Place, Route
from cluster.errors import SquadronError
from cluster.protocols.openai.responses.answer import response_of
from cluster.protocols.openai.responses.events import ResponseEvents
from cluster.protocols.openai.responses.request import (
    ResponsesRequest,
    chat_of,
    own_names,
    read,
    written,
)


class ResponsesRoutes:
    """Over the chats of one front door."""

    def __init__(self, chats: GenerationRoutes) -> None:
        self._chats = chats

    def routes(self) -> list[Route]:
        return [described("/v1/responses", self._respond, "Answer with a Response")]

    async def _respond(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        check_json(request)
        asked = read(request.body)
        chat = replace(request, body=written(chat_of(asked)))
        try:
            reply = await self._chats.chat(chat, place)
        except Told as told:
            raise Told(own_names(told.error), told.headers) from None
        except SquadronError as error:
            raise own_names(error) from None
        if isinstance(reply, HttpStream):
            reply.parts = _events(asked, reply.parts)
            return reply
        found = response_of(asked, orjson.loads(b"".join(reply.chunks)))
        reply.chunks = (written(found),)
        return reply


async def _events(
    asked: ResponsesRequest, parts: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    events = ResponseEvents(asked)
    async with aclosing(parts):
        async for part in parts:
            told = events.add(part)
            if told:
                yield told
