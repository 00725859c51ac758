"""The generate extension over HTTP: a flat JSON object in, one answer or a stream of events out."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from actors.experiments.desk import answer_headers, failure_headers
from actors.front_door import FrontDoor
from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream, error_reply
from actors.listeners.routes.infer import InferRoutes
from actors.listeners.routes.table import Place, Route
from cluster.errors import InvalidRequest, ReplicaError, SquadronError
from cluster.protocols.extensions.generate import (
    ONE_RESPONSE,
    decode_generate,
    encode_generated,
    error_event,
    event,
)
from cluster.requests import InferenceRequest, InferenceResponse

logger = logging.getLogger("squadron.http")

EVENTS = "text/event-stream; charset=utf-8"


class GenerateRoutes:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor, infer: InferRoutes) -> None:
        self._door = door
        self._infer = infer

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/v2/models/{model}/generate",
                answer=self._generate,
                summary="Run a model, with its inputs as plain JSON fields",
                takes="GenerateRequest",
                gives="Generated",
                takes_compressed=False,
                is_of_model=True,
            ),
            Route(
                method="POST",
                path="/v2/models/{model}/generate_stream",
                answer=self._generate_stream,
                summary="The same, each response as an event",
                takes="GenerateRequest",
                gives="Text",
                answers_with="text/event-stream",
                takes_compressed=False,
                is_of_model=True,
            ),
        ]

    async def _generate(self, request: HttpRequest, place: Place) -> HttpReply:
        asked = self._asked(request, place)
        if any(each.facts.is_language for each in self._door.table.variants_of(asked.model)):
            # It answers in pieces unless it is told not to; here is room for one answer.
            asked.parameters.setdefault("stream", False)
        try:
            found = await self._only(asked)
            content = encode_generated(found, asked)
        except SquadronError as error:
            return error_reply(error, failure_headers(asked))
        headers = tuple(answer_headers(asked, found.variant))
        return HttpReply(status=200, chunks=(content,), headers=headers)

    async def _only(self, asked: InferenceRequest) -> InferenceResponse:
        """Raises: InvalidRequest for a model that has not exactly one response."""
        found: InferenceResponse | None = None
        async with aclosing(self._door.stream(asked)) as responses:
            async for response in responses:
                if found is not None:
                    raise InvalidRequest(ONE_RESPONSE)
                found = response
        if found is None:
            raise InvalidRequest(ONE_RESPONSE)
        return found

    async def _generate_stream(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        asked = self._asked(request, place)
        responses = self._door.stream(asked)
        try:
            first = await anext(responses, None)
            begin = b"" if first is None else self._event(first, asked)
        except ReplicaError as error:
            # The model's own error as the first response: an event, with the status it stands for.
            return HttpReply(
                status=error.http_status,
                chunks=(error_event(error),),
                content_type=EVENTS,
                headers=error_reply(error, failure_headers(asked)).headers,
            )
        except SquadronError as error:
            await responses.aclose()
            return error_reply(error, failure_headers(asked))
        variant = () if first is None else tuple(answer_headers(asked, first.variant))
        return HttpStream(
            parts=self._events(begin, responses, asked), content_type=EVENTS, headers=variant
        )

    async def _events(
        self,
        begin: bytes,
        responses: AsyncGenerator[InferenceResponse, None],
        asked: InferenceRequest,
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(responses):
            try:
                if begin:
                    yield begin
                async for response in responses:
                    yield self._event(response, asked)
            except SquadronError as error:
                # The status has been sent; the stream ends with what went wrong.
                yield error_event(error)
            except Exception:
                logger.exception("a stream failed with a bug of ours")
                yield error_event(SquadronError("internal error"))

    def _event(self, response: InferenceResponse, asked: InferenceRequest) -> bytes:
        """Raises: PayloadTooLarge."""
        text = event(encode_generated(response, asked))
        self._door.answer_sizes.check(len(text), response.variant)
        return text

    def _asked(self, request: HttpRequest, place: Place) -> InferenceRequest:
        _refuse_compressed(request.headers)
        route = self._door.route(place.model, place.version)
        asked = decode_generate(
            request.body, model=place.model, version=place.version, signature=route.signature
        )
        return self._infer.with_headers(asked, request.headers)


def _refuse_compressed(headers: Mapping[str, str]) -> None:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise InvalidRequest(
            f"Content-Encoding '{encoding[:40]}' is not supported for generate requests: send the "
            "body as it is"
        )
