"""What travels beside a body from the door to a language model's replica, as V2 parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

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

LORA_NAME = "lora_name"
SAMPLING_PARAMETERS = "sampling_parameters"
"""As Triton's vLLM backend calls them: an adapter, and a JSON object (as text) of any fields."""

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
    pieces (parameter `stream`, as Triton's vLLM backend has it; here true where it is not said).

    `sampling_parameters` may hold every field of /v1/completions, stop lists and formats too; a
    parameter beside it goes first. Raises: InvalidRequest.
    """
    try:
        prompt = text.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("input 'text_input' is not UTF-8") from None
    fields = _named_together(parameters.get(SAMPLING_PARAMETERS))
    fields |= {"model": model, "prompt": prompt, "stream": True}
    fields |= {name: parameters[name] for name in _SAMPLING if name in parameters}
    for name in ("n", "best_of"):
        if fields.get(name) not in (None, 1):
            raise InvalidRequest(f"parameter '{name}' must be 1: over V2 a text is one answer")
    if fields.get("echo"):
        raise InvalidRequest("parameter 'echo' is not supported over V2: /v1/completions has it")
    return fields, bool(parameters.get("stream", True))


def adapter_of(parameters: Mapping[str, Parameter]) -> str:
    """The adapter that a call asks for, by the door's word or a V2 caller's; empty for none."""
    found = parameters.get(LORA) or parameters.get(LORA_NAME)
    if not found and parameters.get(SAMPLING_PARAMETERS):
        found = _object(parameters[SAMPLING_PARAMETERS]).get(LORA_NAME)
    return str(found or "")


def _named_together(text: Parameter | None) -> dict[str, Any]:
    found = _object(text)
    # Said elsewhere: the adapter with the call, how it streams by `stream`.
    for name in (LORA_NAME, "stream", "stream_options"):
        found.pop(name, None)
    return found


def _object(text: Parameter | None) -> dict[str, Any]:
    if text is None or text == "":
        return {}
    try:
        found = orjson.loads(str(text))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"parameter '{SAMPLING_PARAMETERS}' is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest(f"parameter '{SAMPLING_PARAMETERS}' must be a JSON object, as text")
    return found
