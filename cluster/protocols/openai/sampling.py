"""A request's sampling fields as `Sampling`, with OpenAI's defaults."""

from __future__ import annotations

import json
from collections.abc import Iterable

from cluster.errors import InvalidRequest
from cluster.generation import Grammar, Sampling
from cluster.protocols.openai.extras import grammar_of
from cluster.protocols.openai.requests import (
    ChatRequest,
    CompletionRequest,
    ResponseFormat,
    SamplingFields,
)
from cluster.protocols.openai.tools import tool_grammar

COMPLETION_TOKENS = 16
"""OpenAI's default `max_tokens` of /v1/completions."""


def sampling_of(
    asked: ChatRequest | CompletionRequest,
    *,
    num_prompt_tokens: int,
    max_model_len: int,
    default_max_tokens: int = 0,
    vocab_size: int,
) -> Sampling:
    """Raises: InvalidRequest when prompt and answer do not fit the model's context."""
    room = max_model_len - num_prompt_tokens
    wanted = max_tokens_of(asked)
    if room < 1 or (wanted or 0) > room:
        asked_for = f" and {wanted} in the completion" if wanted else ""
        raise InvalidRequest(
            f"This model's maximum context length is {max_model_len} tokens. However, you "
            f"requested {num_prompt_tokens} tokens in the prompt{asked_for}. Please reduce their "
            "length",
            param="messages" if isinstance(asked, ChatRequest) else "prompt",
            openai_code="context_length_exceeded",
        )
    for name in ("logit_bias", "stop_token_ids", "allowed_token_ids"):
        _check_tokens(name, getattr(asked, name) or (), vocab_size)
    default = default_max_tokens or room
    if isinstance(asked, CompletionRequest):
        default = COMPLETION_TOKENS
    stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    return Sampling(
        # With 0 a prompt is to be scored alone; engines give one token at least.
        max_tokens=min(room, default) if wanted is None else max(wanted, 1),
        min_tokens=min(asked.min_tokens or 0, wanted or room),
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        top_k=max(asked.top_k or 0, 0),
        min_p=asked.min_p or 0.0,
        num_choices=asked.n or 1,
        seed=asked.seed,
        stop=stop,
        stop_token_ids=tuple(asked.stop_token_ids or ()),
        presence_penalty=asked.presence_penalty or 0.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        repetition_penalty=asked.repetition_penalty or 1.0,
        logit_bias={int(token): bias for token, bias in (asked.logit_bias or {}).items()},
        num_logprobs=_num_logprobs(asked),
        scores_prompt=isinstance(asked, CompletionRequest)
        and bool(asked.echo)
        and asked.logprobs is not None,
        ignore_eos=bool(asked.ignore_eos),
        allowed_token_ids=tuple(asked.allowed_token_ids or ()),
        keeps_stop=bool(asked.include_stop_str_in_output),
        skips_special=asked.skip_special_tokens is not False,
        grammar=_grammar(asked),
        streams=bool(asked.stream),
    )


def _check_tokens(name: str, tokens: Iterable[str | int], vocab_size: int) -> None:
    for token in tokens:
        if not 0 <= int(token) < vocab_size:
            raise InvalidRequest(
                f"{name}: token {token} is out of vocabulary (0 to {vocab_size - 1})", param=name
            )


def max_tokens_of(asked: SamplingFields) -> int | None:
    if isinstance(asked, ChatRequest) and asked.max_completion_tokens is not None:
        return asked.max_completion_tokens
    return asked.max_tokens


def _num_logprobs(asked: ChatRequest | CompletionRequest) -> int | None:
    if isinstance(asked, CompletionRequest):
        return asked.logprobs
    return (asked.top_logprobs or 0) if asked.logprobs else None


def _grammar(asked: SamplingFields) -> Grammar | None:
    if isinstance(asked, ChatRequest):
        demanded = tool_grammar(asked)
        if demanded is not None:
            return demanded
    if asked.structured_outputs is not None:
        return grammar_of(asked.structured_outputs)
    return _format_grammar(asked.response_format)


def _format_grammar(wanted: ResponseFormat | None) -> Grammar | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return Grammar(kind="json_object")
    schema = wanted.json_schema.schema if wanted.json_schema is not None else None
    return Grammar(kind="json_schema", text=json.dumps(schema))
