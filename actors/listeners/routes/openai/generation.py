"""`/v1/chat/completions`, `/v1/completions`, `/tokenize`, `/detokenize` at the door.

The body is checked here and goes to the replica as it is; what comes back is sent on as it is.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from actors.experiments.desk import failure_headers
from actors.front_door import FrontDoor
from actors.listeners.http_messages import JSON, HttpReply, HttpRequest, HttpStream
from actors.listeners.routes.infer import InferRoutes
from actors.listeners.routes.openai.shape import Told, check_json, described, timeout_of
from actors.listeners.routes.table import Place, Route
from cluster.errors import InvalidRequest, ModelNotFound, NoReadyReplica, SquadronError
from cluster.protocols.openai.errors import error_body
from cluster.protocols.openai.extras import session_of
from cluster.protocols.openai.parameters import ENDPOINT, LORA, PREFIX, SESSION, WORK
from cluster.protocols.openai.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    SamplingFields,
    TokenizeRequest,
    decode,
    prompts,
)
from cluster.protocols.openai.sampling import max_tokens_of
from cluster.requests import InferenceRequest, Parameter
from cluster.routing.table import VariantRoute
from cluster.tensors import Tensor, bytes_array

logger = logging.getLogger("squadron.openai")

EVENTS = "text/event-stream; charset=utf-8"
PREFIX_CHARS = 8192
CHARS_PER_TOKEN = 4
ANSWER_TOKENS = 128
"""What an answer is taken for, to weigh replicas' work, when the request does not bound it."""

_KINDS: dict[str, type[msgspec.Struct]] = {
    "chat": ChatRequest,
    "completions": CompletionRequest,
    "tokenize": TokenizeRequest,
    "detokenize": DetokenizeRequest,
}


class GenerationRoutes:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor, infer: InferRoutes) -> None:
        self._door = door
        self._infer = infer

    def routes(self) -> list[Route]:
        return [
            described("/v1/chat/completions", self.chat, "Answer a conversation"),
            described("/v1/completions", self.completions, "Go on with a text"),
            described("/tokenize", self.tokenize, "A text's or conversation's token ids"),
            described("/detokenize", self.detokenize, "The text of token ids"),
        ]

    async def chat(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        return await self._ask(request, "chat")

    async def completions(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        return await self._ask(request, "completions")

    async def tokenize(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        return await self._ask(request, "tokenize")

    async def detokenize(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        return await self._ask(request, "detokenize")

    async def _ask(self, request: HttpRequest, endpoint: str) -> HttpReply | HttpStream:
        check_json(request)
        body = decode(request.body, _KINDS[endpoint])
        asked = self._infer.with_headers(self._request(request, endpoint, body), request.headers)
        streams = isinstance(body, SamplingFields) and bool(body.stream)
        responses = self._door.stream(asked)
        try:
            first = await anext(responses)
            if not streams:
                # To its end: a stream that is left counts as given up by its caller.
                async with aclosing(responses):
                    await anext(responses, None)
        except BaseException as error:
            await responses.aclose()
            if isinstance(error, SquadronError):
                raise Told(error, failure_headers(asked)) from None
            raise
        headers = (
            ("x-squadron-variant", first.variant),
            ("X-Request-Id", asked.tracking_id or asked.request_id),
        )
        part = bytes(first.outputs[0].array.item())
        if not streams:
            return HttpReply(status=200, chunks=(part,), content_type=JSON, headers=headers)
        return HttpStream(
            parts=self._events(part, first.variant, responses), content_type=EVENTS, headers=headers
        )

    async def _events(
        self, first: bytes, variant: str, responses: AsyncGenerator[object, None]
    ) -> AsyncGenerator[bytes, None]:
        check = self._door.answer_sizes.check
        async with aclosing(responses):
            try:
                check(len(first), variant)
                yield first
                async for response in responses:
                    part = bytes(response.outputs[0].array.item())  # type: ignore[attr-defined]
                    check(len(part), variant)
                    yield part
            except SquadronError as error:
                # The status has been sent; the stream ends with what went wrong.
                yield _last(error)
            except Exception:
                logger.exception("a stream failed with a bug of ours")
                yield _last(SquadronError("internal error"))

    def _request(
        self, request: HttpRequest, endpoint: str, body: msgspec.Struct
    ) -> InferenceRequest:
        is_any = not isinstance(body, SamplingFields)
        model, lora = self._model(str(getattr(body, "model", "")), is_any=is_any)
        parameters: dict[str, Parameter] = {ENDPOINT: endpoint, **timeout_of(request)}
        priority = 0
        if lora:
            parameters[LORA] = lora
        if isinstance(body, ChatRequest | CompletionRequest):
            text = _text(body)
            answer = (max_tokens_of(body) or ANSWER_TOKENS) * (body.n or 1)
            parameters[PREFIX] = text[:PREFIX_CHARS]
            parameters[WORK] = len(text) / CHARS_PER_TOKEN + answer
            priority = body.priority or 0
            session = request.headers.get("x-squadron-session", "") or session_of(body)
            if session:
                parameters[SESSION] = session
        array = bytes_array([bytes(request.body)], (1,))
        return InferenceRequest(
            model=model,
            request_id=request.headers.get("x-request-id", "") or uuid.uuid4().hex,
            inputs=(Tensor(name="text_input", datatype="BYTES", array=array),),
            parameters=parameters,
            priority=priority,
        )

    def _model(self, name: str, *, is_any: bool) -> tuple[str, str]:
        """The model and the adapter of `model` or `model:adapter`; without a name the first one
        that generates text, if any will do."""
        if is_any and not name:
            names = [each for each in self._door.table.routes if self._generates(each)]
            if not names:
                raise ModelNotFound("No model here generates text", param="model")
            return names[0], ""
        model, _, lora = name.partition(":")
        if model not in self._door.table.routes:
            raise ModelNotFound(f"The model `{name}` does not exist", param="model")
        if not self._there(model):
            why = self._door.table.state_of(model)[1]
            # Also one whose engine is not installed, of which nobody knows what it does.
            raise NoReadyReplica(f"The model `{name}` is not available: {why}", retry_after_s=1)
        if not self._generates(model):
            raise InvalidRequest(
                f"The model `{name}` does not generate text; ask it over /v2/models/{model}",
                param="model",
            )
        return model, lora

    def _generates(self, model: str) -> bool:
        there = self._there(model)
        return bool(there) and all(variant.facts.is_language for variant in there)

    def _there(self, model: str) -> list[VariantRoute]:
        variants = self._door.table.variants_of(model)
        return [each for each in variants if each.state != "UNAVAILABLE"]


def _last(error: SquadronError) -> bytes:
    return b"data: " + error_body(error) + b"\n\ndata: [DONE]\n\n"


def _text(body: ChatRequest | CompletionRequest) -> str:
    """What replicas are chosen by: the same beginning gives the same text."""
    if isinstance(body, ChatRequest):
        pieces = []
        for message in body.messages:
            content = message.content
            if isinstance(content, list):
                content = "".join(part.said for part in content)
            pieces.append(f"{message.role}\n{content or ''}\n")
        return "".join(pieces)
    first = prompts(body.prompt)[0]
    return first if isinstance(first, str) else " ".join(map(str, first))
