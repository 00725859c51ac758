"""`/v1/embeddings`, `/score`, `/rerank`: any model with a text in and an `embedding` out."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from actors.experiments.desk import answer_headers, failure_headers
from actors.front_door import FrontDoor
from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream, json_reply
from actors.listeners.routes.infer import InferRoutes
from actors.listeners.routes.openai.shape import Told, check_json, described, timeout_of
from actors.listeners.routes.table import Place, Route
from cluster.errors import InvalidRequest, ModelNotFound, NoReadyReplica, SquadronError
from cluster.protocols.openai.embeddings import (
    EmbeddingRequest,
    RerankRequest,
    ScoreRequest,
    TextsRequest,
    cosines,
    counted,
    cut,
    embedding_texts,
    embeddings_object,
    pairs,
    rerank_object,
    score_object,
)
from cluster.protocols.openai.requests import decode
from cluster.requests import InferenceRequest
from cluster.tensors import Array, Tensor, bytes_array


class VectorRoutes:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor, infer: InferRoutes) -> None:
        self._door = door
        self._infer = infer
        self._tokenizers: dict[str, Any] = {}

    def routes(self) -> list[Route]:
        return [
            described("/v1/embeddings", self.embeddings, "Vectors of texts"),
            *(
                described(path, self.score, "How alike texts are")
                for path in ("/score", "/v1/score")
            ),
            *(
                described(path, self.rerank, "Documents by how well they fit a query")
                for path in ("/rerank", "/v1/rerank", "/v2/rerank")
            ),
        ]

    async def embeddings(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        check_json(request)
        asked = decode(request.body, EmbeddingRequest)
        found = await self._embed(asked, embedding_texts(asked), request)
        content = embeddings_object(
            cut(found.vectors, asked.dimensions),
            model=asked.model,
            encoding_format=asked.encoding_format,
            num_tokens=found.num_tokens,
        )
        return found.reply(content)

    async def score(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        check_json(request)
        asked = decode(request.body, ScoreRequest)
        left, right = pairs(asked)
        found = await self._embed(asked, left + right, request)
        scores = cosines(found.vectors[: len(left)], found.vectors[len(left) :])
        content = score_object(
            scores,
            model=asked.model,
            answer_id=f"score-{uuid.uuid4().hex}",
            created_s=int(time.time()),
            num_tokens=found.num_tokens,
        )
        return found.reply(content)

    async def rerank(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        check_json(request)
        asked = decode(request.body, RerankRequest)
        if not asked.documents:
            raise InvalidRequest("documents: at least one is needed", param="documents")
        found = await self._embed(asked, [asked.query, *asked.texts], request)
        scores = cosines(found.vectors[:1], found.vectors[1:])
        content = rerank_object(
            scores, asked, answer_id=f"rerank-{uuid.uuid4().hex}", num_tokens=found.num_tokens
        )
        return found.reply(content)

    async def _embed(self, body: TextsRequest, texts: list[str], request: HttpRequest) -> _Embedded:
        """Raises: InvalidRequest, ModelNotFound; Told for what a model could not do."""
        model = body.model
        route = self._door.table.routes.get(model)
        if route is None:
            raise ModelNotFound(f"The model `{model}` does not exist", param="model")
        variants = self._door.table.variants_of(model)
        if variants and all(variant.state == "UNAVAILABLE" for variant in variants):
            # Of one that cannot run here nobody knows what it takes.
            why = self._door.table.state_of(model)[1]
            raise NoReadyReplica(f"The model `{model}` is not available: {why}", retry_after_s=1)
        signature = route.signature
        spec = signature.input("text")
        if not variants or spec is None or signature.output("embedding") is None:
            raise InvalidRequest(f"The model `{model}` makes no embeddings of texts", param="model")
        counts = self._counts(variants[0].facts.tokenizer, texts)
        num_tokens = counted(counts, min(each.facts.max_model_len for each in variants), body)
        most = min(variant.batching.max_batch_size for variant in variants)
        pieces = [texts[begin : begin + most] for begin in range(0, len(texts), most)]
        asked = [self._asked(model, piece, request) for piece in pieces]
        if len(asked) > 1:
            _bind(asked)
        try:
            answers = await asyncio.gather(*map(self._door.infer, asked))
        except SquadronError as error:
            raise Told(error, failure_headers(asked[0])) from None
        return _Embedded(
            vectors=np.concatenate([answer.output("embedding").array for answer in answers]),
            num_tokens=num_tokens,
            headers=tuple(answer_headers(asked[0], answers[0].variant)),
        )

    def _asked(self, model: str, texts: list[str], request: HttpRequest) -> InferenceRequest:
        array = bytes_array([text.encode("utf-8", "replace") for text in texts], (len(texts),))
        asked = InferenceRequest(
            model=model,
            inputs=(Tensor(name="text", datatype="BYTES", array=array),),
            parameters=timeout_of(request),
        )
        return self._infer.with_headers(asked, request.headers)

    def _counts(self, tokenizer: str, texts: list[str]) -> list[int]:
        """Tokens of each; none where the tokenizer does not lie in the store of this node."""
        found = self._tokenizers.get(tokenizer)
        if found is None:
            found = self._tokenizers[tokenizer] = _Counter(tokenizer)
        return found.counts(texts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Embedded:
    """Vectors in the texts' order, how many tokens the texts have, and who answered."""

    vectors: Array
    num_tokens: int
    headers: tuple[tuple[str, str], ...]

    def reply(self, content: object) -> HttpReply:
        reply = json_reply(content)
        reply.headers = self.headers
        return reply


def _bind(asked: list[InferenceRequest]) -> None:
    """The pieces of one request meet one arm of an experiment, as one caller's do, and are rated
    together: vectors of two models cannot be compared."""
    together = asked[0].tracking_id or uuid.uuid4().hex
    for each in asked:
        each.tracking_id = together
        each.affinity_key = each.affinity_key or together


class _Counter:
    """Counts tokens with the tokenizer in a file, which is read when it is first needed."""

    def __init__(self, file: str) -> None:
        self._file = file

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        try:
            found = Tokenizer.from_file(self._file)
        except Exception:
            # `tokenizers` raises plain Exception for a file that is not there.
            return None
        found.no_padding()
        found.no_truncation()
        return found

    def counts(self, texts: list[str]) -> list[int]:
        if self._tokenizer is None:
            return []
        return [len(each.ids) for each in self._tokenizer.encode_batch(texts)]
