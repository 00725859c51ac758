"""What flows through a language model: how to sample, and the pieces of text that come back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["", "stop", "length", "abort"]
"""Empty while a choice goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What the text must look like: a JSON schema as text, any JSON object, a regex, or a grammar
    in llguidance's dialect of Lark. `param`: the request's field that says so."""

    kind: Literal["json_schema", "json_object", "regex", "lark"]
    text: str = ""
    param: str = "response_format"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 keep all.

    `max_tokens` counts new tokens of one choice, `num_choices` is OpenAI's n. `num_logprobs` None
    asks for none, 0 for the chosen token's alone; `scores_prompt`: the prompt's tokens are scored
    too (OpenAI's `echo`). Penalties and bias are OpenAI's. Before
    `min_tokens` nothing ends a choice; with `allowed_token_ids` no other token is taken.
    `keeps_stop`: the stop string or token that ended a choice is in its text; `skips_special`:
    special tokens are not.
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    num_choices: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    num_logprobs: int | None = None
    scores_prompt: bool = False
    ignore_eos: bool = False
    allowed_token_ids: tuple[int, ...] = ()
    keeps_stop: bool = False
    skips_special: bool = True
    grammar: Grammar | None = None
    streams: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScore:
    """`logprob` is NaN for a prompt's first token, which follows nothing."""

    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredToken:
    """A token that was chosen and the likeliest ones in its place, best first."""

    chosen: TokenScore
    top: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one choice gained. Text lags behind tokens while a character or a stop string may still
    be incomplete. `num_cached`: prompt tokens whose keys and values were there already.
    `prompt_scores`: of every token of the prompt, with a choice's first delta."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    scores: tuple[ScoredToken, ...] = ()
    finish_reason: FinishReason = ""
    num_cached: int = 0
    prompt_scores: tuple[ScoredToken, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """What a language engine is busy with. `kv_usage` is the part of its KV memory that requests
    hold (0..1); the other counts only grow."""

    num_running: int = 0
    num_waiting: int = 0
    kv_usage: float = 0.0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
