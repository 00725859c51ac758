"""Language-model tokens of a request: expected when it comes, counted when it is over."""

from __future__ import annotations

from dataclasses import replace

from cluster.protocols.openai.parameters import COUNT_TOKENS, COUNTED, WORK
from cluster.requests import InferenceRequest, InferenceResponse

__all__ = ["COUNT_TOKENS", "expected_tokens", "split_count"]

CHARS_PER_TOKEN = 4
ANSWER_TOKENS = 128
"""What an answer is taken for whose request does not bound it."""


def expected_tokens(request: InferenceRequest, max_model_len: int) -> float:
    """What is taken from the key's quota at once, and put right at the end; it stays where the
    caller leaves before that. Never less than the request itself shows: V2's callers write their
    parameters themselves."""
    num_bytes = sum(tensor.num_bytes for tensor in request.inputs)
    prompt = num_bytes / CHARS_PER_TOKEN
    if max_model_len:
        prompt = min(prompt, max_model_len)
    asked = request.parameters.get("max_tokens", ANSWER_TOKENS)
    answer = asked if isinstance(asked, int | float) and asked > 0 else ANSWER_TOKENS
    work = request.parameters.get(WORK, 0)
    return max(prompt + answer, work if isinstance(work, int | float) else 0)


def split_count(response: InferenceResponse) -> tuple[InferenceResponse, float | None]:
    """The response as its caller is to see it, and the tokens used so far, where it tells them."""
    counts = next((each for each in response.outputs if each.name == COUNTED), None)
    if counts is None:
        return response, None
    outputs = tuple(each for each in response.outputs if each.name != COUNTED)
    return replace(response, outputs=outputs), float(counts.array.sum())
