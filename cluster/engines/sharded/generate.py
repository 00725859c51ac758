"""Tokens one by one from what computes the last position's logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from cluster.config.model_card import ModelCard, SignatureCard, TensorCard
from cluster.errors import ConfigError, InvalidRequest
from cluster.requests import Parameter
from cluster.tensors import Array

PARAMETERS = ("max_tokens", "temperature", "top_k", "seed", "stop_token")
DEFAULT_MAX_TOKENS = 64


Logits = Callable[[Array], Array]
"""`[1, n]` token ids that follow what was given before -> `[1, 1, vocabulary]`."""


def generate(
    logits: Logits,
    inputs: Mapping[str, Array],
    parameters: Mapping[str, Parameter],
    *,
    max_positions: int = 0,
    end: Callable[[], None],
) -> Iterator[dict[str, Array]]:
    """A token a response, `token` INT64 [1]. Greedy unless `temperature` is above 0.

    Parameters: max_tokens (64), temperature (0), top_k (all), seed (0), stop_token (none; it is
    given, then the stream ends); others are the protocol's, and not looked at. `end` is called
    once, however the stream ends.
    Raises: InvalidRequest for one of them that is no number or out of its range, and for more
    positions than there are; at once, before the first token is asked for.
    """
    ids = inputs["input_ids"]
    ids = ids.reshape(1, -1)
    settings = _settings(parameters)
    if not ids.size:
        raise InvalidRequest("input_ids is empty", key="input_ids")
    longest = ids.shape[1] + int(settings["max_tokens"])
    if max_positions and longest > max_positions:
        raise InvalidRequest(
            f"{ids.shape[1]} tokens and max_tokens {settings['max_tokens']:g} are more than the "
            f"{max_positions} positions that there are",
            key="max_tokens",
        )
    return _tokens(logits, ids, settings, end)


def generating(card: ModelCard, options: Mapping[str, str | int | float | bool]) -> ModelCard:
    """The card of a model that gives tokens instead of logits, where option `task` says so.

    Raises: ConfigError for another task, and for a model that has no logits of tokens.
    """
    task = options.get("task", "logits")
    if task == "logits" or card.format != "huggingface":
        return card
    inputs = [tensor.name for tensor in card.signature.inputs]
    outputs = [tensor.name for tensor in card.signature.outputs]
    if task != "generate" or inputs != ["input_ids"] or outputs != ["logits"]:
        allowed = "logits, generate (a language model: input_ids -> logits)"
        raise ConfigError(
            f"option task is {task!r}; allowed: {allowed}",
            key="options.task",
            value=str(task),
            allowed=allowed,
        )
    signature = SignatureCard(
        inputs=[TensorCard(name="input_ids", datatype="INT64", shape=[-1])],
        outputs=[TensorCard(name="token", datatype="INT64", shape=[1])],
    )
    return card.model_copy(update={"decoupled": True, "batched": False, "signature": signature})


def _tokens(
    logits: Logits, ids: Array, settings: dict[str, float], end: Callable[[], None]
) -> Iterator[dict[str, Array]]:
    generator = np.random.default_rng(int(settings["seed"]))
    try:
        given = ids
        for _ in range(int(settings["max_tokens"])):
            scores = logits(given)[0, -1]
            token = _choose(scores, settings, generator)
            yield {"token": np.array([token], np.int64)}
            if token == settings["stop_token"]:
                return
            given = np.array([[token]], np.int64)
    finally:
        end()


def _choose(scores: Array, settings: dict[str, float], generator: np.random.Generator) -> int:
    if settings["temperature"] <= 0:
        return int(scores.argmax())
    scores = scores.astype(np.float64) / settings["temperature"]
    top_k = int(settings["top_k"])
    if 0 < top_k < scores.size:
        scores[scores < np.partition(scores, -top_k)[-top_k]] = -np.inf
    chances = np.exp(scores - scores.max())
    return int(generator.choice(scores.size, p=chances / chances.sum()))


def _settings(parameters: Mapping[str, Parameter]) -> dict[str, float]:
    found: dict[str, float] = {
        "max_tokens": DEFAULT_MAX_TOKENS,
        "temperature": 0,
        "top_k": 0,
        "seed": 0,
        "stop_token": -1,
    }
    for name, value in parameters.items():
        if name not in PARAMETERS:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(f"parameter {name} is a number, got {value!r}", key=name)
        is_whole, least, most, allowed = _ALLOWED[name]
        # Not a number is in no range.
        if not least <= value <= most or (is_whole and value != int(value)):
            raise InvalidRequest(f"{name} is {value:g}; allowed: {allowed}", key=name)
        found[name] = value
    return found


_ALLOWED: dict[str, tuple[bool, float, float, str]] = {
    "max_tokens": (True, 1, 1_000_000, "1 to 1000000"),
    "temperature": (False, 0, 1e6, "0 (the likeliest token) and more"),
    "top_k": (True, -1, 2**31, "1 and more; 0 or -1 keeps all"),
    "seed": (True, 0, 2**53, "0 and more, whole"),
    "stop_token": (True, -1, 2**31, "a token's number; -1 is none"),
}
"""Parameter -> whether it is whole, the least, the most, and both in words."""
