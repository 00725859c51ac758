"""What travels beside a body from the door to a language model's replica, as V2 parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.errors import InvalidRequest
from cluster.requests import Parameter

ENDPOINT = "squadron_openai"
LORA = "squadron_lora"
PREFIX = "squadron_prefix"
SESSION = "squadron_session"
WORK = "squadron_work"
COUNT_TOKENS = "squadron_count_tokens"
COUNTED = "squadron_tokens"
"""The output that tells the tokens used so far, for a door that asked for it."""

_SAMPLING = (
    "max_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "ignore_eos",
)


def completion_of(
    text: bytes, parameters: Mapping[str, Parameter], *, model: str
) -> tuple[dict[str, Any], bool]:
    """A V2 request's text and sampling parameters as a completion, and whether its answer comes in
    pieces (parameter `stream`, as Triton's vLLM backend has it; here true where it is not said)."""
    try:
        prompt = text.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("input 'text_input' is not UTF-8") from None
    fields: dict[str, Any] = {"model": model, "prompt": prompt, "stream": True}
    fields |= {name: parameters[name] for name in _SAMPLING if name in parameters}
    return fields, bool(parameters.get("stream", True))
