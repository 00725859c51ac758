"""`/v1/embeddings`, `/score` and `/rerank`: shapes, and the arithmetic on vectors."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from cluster.errors import InvalidRequest
from cluster.protocols.openai.requests import prompts
from cluster.tensors import Array

MAX_INPUTS = 2048
"""OpenAI's bound of one request."""


class TextsRequest(msgspec.Struct, kw_only=True):
    """`truncate_prompt_tokens` (vLLM's): -1 lets the tokens count that the model takes of a longer
    text, the first ones; without it such a text is refused."""

    model: str
    truncate_prompt_tokens: int | None = None


class EmbeddingRequest(TextsRequest, kw_only=True):
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = None
    user: str | None = None


class ScoreRequest(TextsRequest, kw_only=True):
    """The two sides have three pairs of names, as in vLLM."""

    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None
    data_1: str | list[str] | None = None
    data_2: str | list[str] | None = None


class Document(msgspec.Struct):
    text: str


class RerankRequest(TextsRequest, kw_only=True):
    """`top_n` 0 stands for all."""

    query: str
    documents: list[str | Document]
    top_n: int | None = None

    @property
    def texts(self) -> list[str]:
        return [each if isinstance(each, str) else each.text for each in self.documents]


def embedding_texts(asked: EmbeddingRequest) -> list[str]:
    """Raises: InvalidRequest for token ids (the models here tokenise themselves), too many inputs
    or none."""
    if asked.input == []:
        raise InvalidRequest("input: at least one text is needed", param="input")
    try:
        found = prompts(asked.input)
    except InvalidRequest as error:
        raise InvalidRequest(error.message.replace("prompt", "input", 1), param="input") from None
    if len(found) > MAX_INPUTS:
        raise InvalidRequest(f"input: at most {MAX_INPUTS} texts", param="input")
    texts = [each for each in found if isinstance(each, str)]
    if len(texts) < len(found):
        raise InvalidRequest(
            "input: texts are needed, not token ids, which are mostly another model's (with "
            "langchain: check_embedding_ctx_length=False)",
            param="input",
        )
    return texts


def counted(num_tokens: Sequence[int], max_tokens: int, asked: TextsRequest) -> int:
    """Tokens of all texts as the model sees them; `max_tokens` 0 bounds nothing. Raises:
    InvalidRequest for a longer text that may not be cut."""
    cuts = asked.truncate_prompt_tokens
    if cuts not in (None, -1, max_tokens):
        allowed = f"-1 or {max_tokens}" if max_tokens else "-1"
        raise InvalidRequest(
            f"truncate_prompt_tokens must be {allowed} (the first tokens count, as many as "
            f"`{asked.model}` takes), got {cuts}",
            param="truncate_prompt_tokens",
        )
    longest = max(num_tokens, default=0)
    if max_tokens and longest > max_tokens and cuts is None:
        raise InvalidRequest(
            f"text {num_tokens.index(longest)} has {longest} tokens, `{asked.model}` takes at most "
            f"{max_tokens}: with truncate_prompt_tokens -1 the first {max_tokens} count",
            param="input" if isinstance(asked, EmbeddingRequest) else None,
        )
    return sum([min(each, max_tokens or each) for each in num_tokens])


def cut(vectors: Array, dimensions: int | None) -> Array:
    """The first dimensions, of length 1 again. Raises: InvalidRequest for more than there are."""
    width = vectors.shape[1]
    if dimensions is None:
        return vectors
    if not 1 <= dimensions <= width:
        raise InvalidRequest(
            f"dimensions must be at least 1 and at most {width}, got {dimensions}",
            param="dimensions",
        )
    kept = vectors[:, :dimensions]
    return np.asarray(kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12))


def embeddings_object(
    vectors: Array, *, model: str, encoding_format: str | None, num_tokens: int
) -> dict[str, Any]:
    little = vectors.astype("<f4")
    if encoding_format == "base64":
        shown: Sequence[Any] = [base64.b64encode(row.tobytes()).decode() for row in little]
    else:
        shown = little.tolist()
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": each}
            for index, each in enumerate(shown)
        ],
        "model": model,
        "usage": usage(num_tokens),
    }


def usage(num_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def pairs(asked: ScoreRequest) -> tuple[list[str], list[str]]:
    """Each text of one side beside its partner. Raises: InvalidRequest when they do not pair."""
    left, right = _sides(asked)
    if len(left) == 1:
        left = left * len(right)
    if not left or len(left) != len(right):
        raise InvalidRequest(
            f"text_1 has {len(left)} texts and text_2 {len(right)}: one against many, or as many",
            param="text_1",
        )
    return left, right


def _sides(asked: ScoreRequest) -> tuple[list[str], list[str]]:
    given = [
        (one, other)
        for one, other in (
            (asked.text_1, asked.text_2),
            (asked.queries, asked.documents),
            (asked.data_1, asked.data_2),
        )
        if one is not None and other is not None
    ]
    if len(given) != 1:
        raise InvalidRequest(
            "text_1 and text_2 are needed (or queries and documents, or data_1 and data_2)",
            param="text_1",
        )
    one, other = given[0]
    return (
        [one] if isinstance(one, str) else one,
        [other] if isinstance(other, str) else other,
    )


def cosines(left: Array, right: Array) -> list[float]:
    """Row by row; `left` may have a single row for all."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: list[float] = ((left * right).sum(axis=1) / np.maximum(norms, 1e-12)).tolist()
    return found


def score_object(
    scores: Sequence[float], *, model: str, answer_id: str, created_s: int, num_tokens: int
) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": "list",
        "created": created_s,
        "model": model,
        "data": [
            {"index": index, "object": "score", "score": score}
            for index, score in enumerate(scores)
        ],
        "usage": usage(num_tokens),
    }


def rerank_object(
    scores: Sequence[float], asked: RerankRequest, *, answer_id: str, num_tokens: int
) -> dict[str, Any]:
    """Best first, `top_n` of them."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    if asked.top_n is not None and asked.top_n < 0:
        raise InvalidRequest(
            f"top_n must be at least 1, or 0 for all, got {asked.top_n}", param="top_n"
        )
    return {
        "id": answer_id,
        "model": asked.model,
        "usage": {"total_tokens": num_tokens},
        "results": [
            {
                "index": index,
                "document": {"text": asked.texts[index]},
                "relevance_score": scores[index],
            }
            for index in order[: asked.top_n or None]
        ],
    }
