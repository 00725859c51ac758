"""vLLM's own fields of a request: those that are kept, and those that are refused by name.

A field that nobody knows is ignored, as the public API ignores it. One that vLLM's documentation
promises would change the answer; leaving it out without a word would be a wrong answer.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from cluster.errors import InvalidRequest
from cluster.generation import Grammar

MAX_CHOICES = 1024
MAX_CHOICE_CHARS = 65_536
WHERE = "structured_outputs"

REFUSED = {
    "functions": "use tools",
    "function_call": "use tool_choice",
    "audio": "this model writes text",
    "web_search_options": "this server searches nothing",
    "use_beam_search": "n gives several answers, logprobs how likely they are",
    "documents": "use chat_template_kwargs.documents, where the model's template has them",
    "logprob_token_ids": "use top_logprobs, or logprobs of /v1/completions",
    "return_tokens_as_token_ids": "ask /tokenize for a text's token ids",
    "prompt_embeds": "send text or token ids",
    "repetition_detection": "use frequency_penalty or repetition_penalty",
    "thinking_token_budget": "use max_completion_tokens",
    "vllm_xargs": "this server has no such arguments",
    "bad_words": "use logit_bias or structured_outputs",
    "prompt_logprobs": "/v1/completions scores the prompt's tokens with echo and logprobs",
    "return_token_ids": "ask /tokenize for a text's token ids",
    "chat_template": "the model's own is used, or the file that `llm.chat_template` names",
    "guided_json": "use structured_outputs.json",
    "guided_regex": "use structured_outputs.regex",
    "guided_choice": "use structured_outputs.choice",
    "guided_grammar": "use structured_outputs.grammar",
}

TEMPLATE_ARGUMENTS = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
"""What rendering itself takes. A template of the caller's is a program that runs for as long as it
likes; the others have fields of their own."""


class StructuredOutputs(msgspec.Struct, forbid_unknown_fields=True):
    """What the text must look like, in one of these ways. `grammar` is llguidance's dialect of
    Lark. https://docs.vllm.ai/en/latest/features/structured_outputs/"""

    json: str | dict[str, Any] | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class Extras(msgspec.Struct, kw_only=True):
    """`truncate_prompt_tokens`: as many of the prompt's last tokens are kept, -1: as many as fit.
    `add_special_tokens`: of the tokenizer, around the prompt; without a word those of a template or
    of a plain text. `include_stop_str_in_output`: what ends an answer is in its text.
    `cache_salt`: only prompts with the same one share keys and values."""

    structured_outputs: StructuredOutputs | None = None
    allowed_token_ids: list[int] | None = None
    truncate_prompt_tokens: int | None = None
    cache_salt: str | None = None
    add_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = False
    skip_special_tokens: bool | None = True
    session_id: str | None = None
    prompt_cache_key: str | None = None
    modalities: list[str] | None = None
    length_penalty: float | None = None
    truncation_side: str | None = None
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    web_search_options: Any = None
    use_beam_search: Any = None
    documents: Any = None
    logprob_token_ids: Any = None
    return_tokens_as_token_ids: Any = None
    prompt_embeds: Any = None
    repetition_detection: Any = None
    thinking_token_budget: Any = None
    vllm_xargs: Any = None
    bad_words: Any = None
    prompt_logprobs: Any = None
    return_token_ids: Any = None
    chat_template: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None


def session_of(asked: Extras) -> str:
    """What belongs together and goes to one replica while it is not busy: the narrowest name."""
    user = getattr(asked, "user", None)
    return asked.session_id or asked.prompt_cache_key or user or ""


def check_extras(asked: Extras) -> None:
    """Raises: InvalidRequest naming what cannot be kept."""
    for name, instead in REFUSED.items():
        value = getattr(asked, name)
        # 0 says something (`prompt_logprobs`), though it equals False.
        if value is not None and value is not False and value not in ("", [], {}):
            raise InvalidRequest(f"{name} is not supported: {instead}", param=name)
    for name, wrong, allowed in (
        ("modalities", asked.modalities not in (None, [], ["text"]), '["text"]'),
        ("length_penalty", asked.length_penalty not in (None, 1.0), "1 (there is no beam search)"),
        ("truncation_side", asked.truncation_side not in (None, "left"), '"left"'),
    ):
        if wrong:
            raise InvalidRequest(f"{name} is not supported; allowed: {allowed}", param=name)
    if asked.allowed_token_ids == []:
        raise InvalidRequest("allowed_token_ids: at least one is needed", param="allowed_token_ids")
    kept = asked.truncate_prompt_tokens
    if kept is not None and kept < 1 and kept != -1:
        raise InvalidRequest(
            f"truncate_prompt_tokens must be -1 (as many as fit) or at least 1, got {kept}",
            param="truncate_prompt_tokens",
        )
    if asked.structured_outputs is not None:
        grammar_of(asked.structured_outputs)


def check_template_arguments(given: dict[str, Any] | None) -> None:
    """Raises: InvalidRequest for what is no variable of a template."""
    wrong = sorted(TEMPLATE_ARGUMENTS & (given or {}).keys())
    if wrong:
        raise InvalidRequest(
            f"chat_template_kwargs: {', '.join(wrong)} cannot be set here; allowed: variables of "
            "the model's own template",
            param="chat_template_kwargs",
        )


def grammar_of(wanted: StructuredOutputs) -> Grammar:
    """Raises: InvalidRequest for no way or several, and for choices that are none."""
    given = [name for name in wanted.__struct_fields__ if getattr(wanted, name) is not None]
    if len(given) != 1 or wanted.json_object is False:
        raise InvalidRequest(
            f"{WHERE}: exactly one of {', '.join(wanted.__struct_fields__)} is needed, got "
            f"{', '.join(given) or 'none'}",
            param=WHERE,
        )
    if wanted.json is not None:
        text = wanted.json if isinstance(wanted.json, str) else json.dumps(wanted.json)
        return Grammar(kind="json_schema", text=text, param=WHERE)
    if wanted.regex is not None:
        return Grammar(kind="regex", text=wanted.regex, param=WHERE)
    if wanted.grammar is not None:
        return Grammar(kind="lark", text=wanted.grammar, param=WHERE)
    if wanted.choice is not None:
        return Grammar(kind="regex", text=_one_of(wanted.choice), param=WHERE)
    return Grammar(kind="json_object", param=WHERE)


def _one_of(choices: list[str]) -> str:
    if not choices or not all(choices):
        raise InvalidRequest(f"{WHERE}.choice: texts are needed, none empty", param=WHERE)
    if len(choices) > MAX_CHOICES or sum(map(len, choices)) > MAX_CHOICE_CHARS:
        raise InvalidRequest(
            f"{WHERE}.choice: at most {MAX_CHOICES} texts of {MAX_CHOICE_CHARS} characters "
            "together",
            param=WHERE,
        )
    return "|".join(f"({re.escape(each)})" for each in choices)
