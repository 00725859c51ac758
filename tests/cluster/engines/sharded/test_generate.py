from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.engines.sharded.generate import generate
from cluster.errors import InvalidRequest

VOCABULARY = 10


class Counting:
    """The likeliest token is the last one plus one."""

    def __init__(self) -> None:
        self.given: list[list[int]] = []
        self.num_ended = 0

    def __call__(self, ids: Any) -> Any:
        self.given.append(ids[0].tolist())
        scores = np.zeros((1, 1, VOCABULARY), np.float32)
        scores[0, 0, (ids[0, -1] + 1) % VOCABULARY] = 9
        return scores

    def end(self) -> None:
        self.num_ended += 1


def tokens(model: Counting, *, max_positions: int = 0, **parameters: Any) -> list[int]:
    inputs = {"input_ids": np.array([3, 4], np.int64)}
    stream = generate(model, inputs, parameters, max_positions=max_positions, end=model.end)
    return [int(answer["token"][0]) for answer in stream]


def test_after_the_prompt_only_new_tokens_are_computed() -> None:
    model = Counting()
    assert tokens(model, max_tokens=3) == [5, 6, 7]
    assert model.given == [[3, 4], [5], [6]]
    assert model.num_ended == 1


def test_the_stop_token_is_the_last_one() -> None:
    assert tokens(Counting(), max_tokens=9, stop_token=6) == [5, 6]


def test_a_stream_that_is_left_ends_its_cache() -> None:
    model = Counting()
    stream = generate(model, {"input_ids": np.array([1])}, {}, end=model.end)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert model.num_ended == 1


def test_one_seed_gives_the_same_tokens_and_another_one_others() -> None:
    settings = {"max_tokens": 12, "temperature": 50.0}
    first = tokens(Counting(), seed=1, **settings)
    assert first == tokens(Counting(), seed=1, **settings)
    assert first != tokens(Counting(), seed=2, **settings)
    assert tokens(Counting(), seed=1, top_k=1, **settings) == [(5 + n) % 10 for n in range(12)]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; allowed: 1 to 1000000"),
        ({"max_tokens": 2.5}, "max_tokens is 2.5; allowed: 1 to 1000000"),
        ({"max_tokens": float("nan")}, "max_tokens is nan"),
        ({"temperature": -1.0}, "temperature is -1; allowed: 0 .the likeliest token. and more"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": -3}, "top_k is -3; allowed: 1 and more; 0 or -1 keeps all"),
        ({"seed": -1}, "seed is -1; allowed: 0 and more, whole"),
        ({"temperature": "hot"}, "parameter temperature is a number, got 'hot'"),
        ({"max_tokens": 20, "max_positions": 16}, "more than the 16 positions"),
    ],
)
def test_what_cannot_be_generated_is_the_callers_mistake(
    parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        tokens(Counting(), **parameters)
