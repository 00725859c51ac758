"""Inference over HTTP: JSON, binary tensors and raw bodies in, an answer out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from actors.front_door import FrontDoor
from actors.listeners.http_messages import JSON, HttpReply, HttpRequest, error_reply
from actors.listeners.routes.table import Place, Route
from cluster.errors import InvalidRequest, SquadronError
from cluster.protocols import v2_json
from cluster.protocols.v2_quick import QuickDecoder, QuickEncoder
from cluster.requests import InferenceRequest, InferenceResponse
from cluster.routing.table import EnsembleRoute

logger = logging.getLogger("squadron.http")

_CONTEXT_HEADERS = frozenset({"x-request-id", "x-squadron-tenant", "traceparent"})


class InferRoutes:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._decoders: dict[tuple[str, str], QuickDecoder | None] = {}
        self._decoders_of = door.table
        self._encoder = QuickEncoder()

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/v2/models/{model}/infer",
                answer=self._infer,
                summary="Run a model",
                takes="InferRequest",
                gives="InferResponse",
                is_of_model=True,
            ),
        ]

    async def _infer(self, request: HttpRequest, place: Place) -> HttpReply:
        route = self._door.route(place.model, place.version)
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
        return self._reply(asked, answer, binary_default=json_length == 0)

    def begin(
        self, request: HttpRequest, place: Place, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        """The usual request without a task; None leaves it to the handler."""
        decoder = self._decoder(place)
        length = request.headers.get("inference-header-content-length")
        if decoder is None or (length is not None and not length.isdecimal()):
            return None
        found = decoder.decode(
            request.body, None if length is None else int(length[:18]), place.version
        )
        if found is None:
            return None
        asked, rows = found
        asked = self._with_headers(asked, request.headers)
        try:
            ticket = self._door.begin(asked, rows, partial(self._answered, asked, done))
        except SquadronError:
            return None
        return None if ticket is None else partial(self._door.cancel, ticket, asked)

    def _answered(
        self,
        asked: InferenceRequest,
        done: Callable[[HttpReply], None],
        outcome: InferenceResponse | SquadronError,
    ) -> None:
        try:
            if isinstance(outcome, SquadronError):
                raise outcome
            text = self._encoder.encode(outcome, asked)
            if text is None:
                reply = self._reply(asked, outcome)
            else:
                headers = (("x-squadron-variant", outcome.variant),)
                reply = HttpReply(status=200, chunks=(text,), headers=headers)
        except SquadronError as error:
            reply = error_reply(error)
        except Exception:
            logger.exception("a request failed with a bug of ours")
            reply = error_reply(SquadronError("internal error"))
        done(reply)

    def _decoder(self, place: Place) -> QuickDecoder | None:
        """Made once a model and table. None for what no single variant answers."""
        if self._decoders_of is not self._door.table:
            self._decoders_of = self._door.table
            self._decoders = {}
        key = (place.model, place.version)
        if key not in self._decoders:
            self._decoders[key] = self._make_decoder(place)
        return self._decoders[key]

    def _make_decoder(self, place: Place) -> QuickDecoder | None:
        try:
            route = self._door.route(place.model, place.version)
        except SquadronError:
            return None
        variants = self._door.table.variants_of(place.model)
        if isinstance(route, EnsembleRoute) or not route.signature.inputs:
            return None
        if any(variant.signature != route.signature for variant in variants):
            return None
        return QuickDecoder(
            place.model,
            route.signature,
            is_batched=all(variant.facts.is_batched for variant in variants),
            max_batch_size=min(variant.batching.max_batch_size for variant in variants),
        )

    def _reply(
        self, asked: InferenceRequest, answer: InferenceResponse, *, binary_default: bool = False
    ) -> HttpReply:
        encoded = v2_json.encode_infer(
            answer,
            asked,
            binary_default=binary_default,
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
