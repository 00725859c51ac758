"""Inference over HTTP: JSON, binary tensors and raw bodies in, an answer out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from actors.experiments.desk import answer_headers, failure_headers, is_tracking_id
from actors.extensions.request_regions import RequestRegions
from actors.extensions.shared_memory import SharedMemory
from actors.front_door import FrontDoor
from actors.listeners.guard import is_own_program
from actors.listeners.http1.wire import ByteBudget
from actors.listeners.http_messages import JSON, HttpReply, HttpRequest, error_reply
from actors.listeners.routes.table import Place, Route
from cluster.errors import InvalidRequest, SquadronError
from cluster.protocols import v2_json
from cluster.protocols.extensions.shared_memory import DISABLED, Places
from cluster.requests import InferenceRequest, InferenceResponse

_CONTEXT_HEADERS = frozenset({"x-request-id", "x-squadron-tenant", "traceparent"})
"""`tracestate` means nothing without `traceparent`."""


class InferRoutes:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor, memory: SharedMemory) -> None:
        self._door = door
        self._memory = memory
        # What is read from shared memory is no part of a body: as many bytes again.
        self._budget = ByteBudget(door.server.limits.max_buffered_bytes)

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
            asked = self.with_headers(asked, request.headers)
            # A raw body with the binary header asks for Triton's raw answer; without it, for JSON.
            return await self._answered(asked, binary_default=json_length == 0)
        of_caller = partial(self._memory.regions, is_local=is_own_program(request))
        with RequestRegions(of_caller, self._door.route, self._budget) as regions:
            asked = v2_json.decode_infer(
                request.body,
                json_length=json_length,
                model=place.model,
                version=place.version,
                regions=regions,
            )
            asked = self.with_headers(asked, request.headers)
            with self._memory.held(asked.outputs) as places:
                return await self._answered(asked, places=places)

    async def _answered(
        self, asked: InferenceRequest, *, binary_default: bool = False, places: Places = DISABLED
    ) -> HttpReply:
        try:
            answer = await self._door.infer(asked)
            return self.reply(asked, answer, binary_default=binary_default, places=places)
        except SquadronError as error:
            return error_reply(error, failure_headers(asked))

    def reply(
        self,
        asked: InferenceRequest,
        answer: InferenceResponse,
        *,
        binary_default: bool = False,
        places: Places = DISABLED,
    ) -> HttpReply:
        """Raises: InvalidRequest for an output that cannot be sent as the caller asked."""
        encoded = v2_json.encode_infer(
            answer,
            asked,
            binary_default=binary_default,
            class_labels=self._labels(asked),
            places=places,
        )
        headers = answer_headers(asked, answer.variant)
        if "squadron_cache" in answer.parameters:
            headers.append(("x-squadron-cache", str(answer.parameters["squadron_cache"])))
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
        return self._door.class_labels(asked)

    def with_headers(self, asked: InferenceRequest, headers: Mapping[str, str]) -> InferenceRequest:
        if self._door.experiments.has_rules:
            asked.assignment = self._door.experiments.match(asked.model, headers)
        sticky = self._door.sticky_header(asked.model) or "x-squadron-user"
        if sticky not in headers and _CONTEXT_HEADERS.isdisjoint(headers):
            return asked
        tracking_id = headers.get("x-request-id", "")
        return replace(
            asked,
            request_id=asked.request_id or tracking_id,
            tracking_id=tracking_id if is_tracking_id(tracking_id) else "",
            affinity_key=headers.get(sticky, ""),
            tenant=headers.get("x-squadron-tenant", ""),
            trace_parent=headers.get("traceparent", ""),
            trace_state=headers.get("tracestate", ""),
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
