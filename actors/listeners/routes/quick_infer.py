"""Inference as most callers ask for it: no task, no await, one call back with the answer."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from actors.experiments.desk import failure_headers
from actors.front_door import FrontDoor
from actors.listeners.http_messages import HttpReply, HttpRequest, error_reply
from actors.listeners.quick_models import QuickModels
from actors.listeners.routes.table import Place
from cluster.errors import SquadronError
from cluster.protocols import v2_json
from cluster.protocols.v2_quick import QuickDecoder, QuickEncoder
from cluster.requests import InferenceRequest, InferenceResponse

logger = logging.getLogger("squadron.http")

MAX_LENGTH_DIGITS = 18


class Whole(Protocol):
    """The routes that know every kind of request."""

    def with_headers(
        self, asked: InferenceRequest, headers: Mapping[str, str]
    ) -> InferenceRequest: ...

    def reply(self, asked: InferenceRequest, answer: InferenceResponse) -> HttpReply: ...


class QuickInfer:
    """Bound to one front door. What it cannot do it leaves to `whole`."""

    def __init__(self, door: FrontDoor, whole: Whole) -> None:
        self._door = door
        self._whole = whole
        self._models = QuickModels(door, QuickDecoder)
        self._encoder = QuickEncoder()

    def begin(
        self, request: HttpRequest, place: Place, done: Callable[[HttpReply], None]
    ) -> Callable[[], None] | None:
        """See `Answers.begin`."""
        decoder = self._models.decoder(place.model, place.version)
        if decoder is None:
            return None
        length = request.headers.get("inference-header-content-length")
        if length is not None and not (length.isdecimal() and len(length) <= MAX_LENGTH_DIGITS):
            return None
        found = decoder.decode(request.body, None if length is None else int(length), place.version)
        if found is None:
            return None
        asked, rows = found
        asked = self._whole.with_headers(asked, request.headers)
        try:
            ticket = self._door.begin(asked, rows, partial(self._answered, asked, done))
        except SquadronError as error:
            # Refused once, and counted once: the longer way would ask again.
            reply = error_reply(error, failure_headers(asked))
            return get_running_loop().call_soon(done, reply).cancel
        return None if ticket is None else partial(self._door.cancel, ticket, asked)

    def _answered(
        self,
        asked: InferenceRequest,
        done: Callable[[HttpReply], None],
        outcome: InferenceResponse | SquadronError,
    ) -> None:
        if isinstance(outcome, SquadronError):
            # Not raised: under overload most answers are this one.
            done(error_reply(outcome, failure_headers(asked)))
            return
        try:
            chunks = self._encoder.encode(outcome, asked)
            if chunks is None:
                reply = self._whole.reply(asked, outcome)
            else:
                reply = _reply(chunks, asked, outcome)
            self._door.answer_sizes.check(reply.num_bytes, outcome.variant)
        except SquadronError as error:
            reply = error_reply(error, failure_headers(asked))
        except Exception:
            logger.exception("a request failed with a bug of ours")
            reply = error_reply(SquadronError("internal error"), failure_headers(asked))
        done(reply)


def _reply(
    chunks: tuple[bytes | memoryview, ...], asked: InferenceRequest, answer: InferenceResponse
) -> HttpReply:
    headers: tuple[tuple[str, str], ...] = (("x-squadron-variant", answer.variant),)
    if asked.tracking_id:
        headers = (*headers, ("x-request-id", asked.tracking_id))
    if len(chunks) == 1:
        return HttpReply(status=200, chunks=chunks, headers=headers)
    length = ("Inference-Header-Content-Length", str(len(chunks[0])))
    return HttpReply(
        status=200, chunks=chunks, content_type=v2_json.BINARY, headers=(*headers, length)
    )
