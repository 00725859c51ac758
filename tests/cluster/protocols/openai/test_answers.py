from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from cluster.generation import Delta, ScoredToken, TokenScore
from cluster.protocols.openai.answers import Answer
from cluster.protocols.openai.requests import ChatRequest, CompletionRequest, decode

WORDS = {1: "Hello", 2: " world", 3: "!"}
WEATHER = {"type": "function", "function": {"name": "weather"}}


def chat(num_choices: int = 1, **fields: object) -> Answer:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields
    asked = decode(json.dumps(body).encode(), ChatRequest)
    return made(asked, num_choices)


def made(asked: ChatRequest | CompletionRequest, num_choices: int = 1, **more: Any) -> Answer:
    return Answer(
        asked,
        answer_id="chatcmpl-1",
        created_s=5,
        num_choices=num_choices,
        token_text=WORDS.__getitem__,
        **more,
    )


def delta(*tokens: int, reason: Any = "", scored: bool = False) -> Delta:
    scores = tuple(
        ScoredToken(
            chosen=TokenScore(token_id=each, logprob=-0.5),
            top=(TokenScore(token_id=each, logprob=-0.5), TokenScore(token_id=3, logprob=-2.0)),
        )
        for each in tokens
        if scored
    )
    text = "".join(WORDS[each] for each in tokens)
    return Delta(index=0, text=text, token_ids=tokens, scores=scores, finish_reason=reason)


def streamed(answer: Answer, *deltas: Delta) -> list[dict[str, Any]]:
    found = answer.begin()
    for each in deltas:
        found += answer.chunks(0, answer.counted(each))
    return found


def test_a_whole_answer_is_made_of_its_deltas() -> None:
    answer = chat()
    for each in (delta(1), delta(2, 3, reason="stop")):
        answer.add(0, answer.counted(each))

    whole = answer.whole()

    assert whole["choices"][0]["message"]["content"] == "Hello world!"
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"]["completion_tokens"] == 3
    assert (whole["id"], whole["created"], whole["model"]) == ("chatcmpl-1", 5, "m")


def test_a_stream_begins_with_roles_and_ends_with_its_reason() -> None:
    found = streamed(chat(), delta(1), delta(2, reason="length"))

    assert [chunk["choices"][0]["delta"] for chunk in found] == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": " world"},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, "length"]


def test_an_end_without_text_has_a_chunk_of_its_own() -> None:
    found = streamed(chat(), delta(1), delta(reason="stop"))

    assert found[-1]["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }


def test_a_piece_that_shows_nothing_yet_is_no_chunk() -> None:
    assert chat().chunks(0, Delta(index=0, text="", token_ids=(1,))) == []


def test_logprobs_travel_with_their_tokens() -> None:
    found = streamed(chat(logprobs=True, top_logprobs=1), delta(1, scored=True))

    (token,) = found[-1]["choices"][0]["logprobs"]["content"]
    assert (token["token"], token["logprob"], token["bytes"]) == ("Hello", -0.5, list(b"Hello"))
    assert [each["token"] for each in token["top_logprobs"]] == ["Hello"]


def test_minus_infinity_is_a_number_that_json_has() -> None:
    answer = chat(logprobs=True)
    score = ScoredToken(chosen=TokenScore(token_id=1, logprob=float("-inf")))
    answer.add(0, Delta(index=0, text="Hello", token_ids=(1,), scores=(score,)))

    logprobs = answer.whole()["choices"][0]["logprobs"]
    assert logprobs["content"][0]["logprob"] == -9999.0


def test_a_named_function_streams_its_name_and_then_arguments() -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    answer = chat(tools=[WEATHER], tool_choice=named)
    pieces = [Delta(index=0, text=text, token_ids=(1,)) for text in ('{"a"', ": 1}")]
    found = streamed(answer, *pieces, Delta(index=0, text="", finish_reason="stop"))

    calls = [c for chunk in found for c in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert calls[0]["function"] == {"name": "weather", "arguments": ""}
    assert "".join(call["function"]["arguments"] for call in calls) == '{"a": 1}'
    assert found[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_call_made_freely_ends_with_tool_calls() -> None:
    answer = chat(tools=[WEATHER])
    text = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    found = streamed(answer, Delta(index=0, text=text, finish_reason="stop"))

    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_usage_comes_last_and_only_when_asked() -> None:
    assert chat(stream=True).last_chunk() is None

    answer = chat(stream=True, stream_options={"include_usage": True})
    assert streamed(answer, delta(1))[0]["usage"] is None
    last = answer.last_chunk()
    assert last is not None
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 1)


def test_echo_stands_before_each_prompts_choices() -> None:
    body = b'{"model": "m", "prompt": ["A", "B"], "n": 2, "echo": true}'
    answer = made(decode(body, CompletionRequest), 4, echoes=["A", "B"])
    for index in range(4):
        answer.add(index, delta(1))

    texts = [choice["text"] for choice in answer.whole()["choices"]]
    assert texts == ["AHello", "AHello", "BHello", "BHello"]


def of_prompt(*tokens: int) -> tuple[ScoredToken, ...]:
    first, *others = tokens
    scores = delta(*others, scored=True).scores
    return (ScoredToken(chosen=TokenScore(token_id=first, logprob=math.nan)), *scores)


@pytest.mark.parametrize("streams", [False, True])
def test_echo_with_logprobs_scores_the_prompt_first(streams: bool) -> None:
    body = b'{"model": "m", "prompt": "Hello", "echo": true, "logprobs": 1}'
    answer = made(decode(body, CompletionRequest), 1, echoes=["Hello world"])
    first = replace(delta(3, scored=True, reason="length"), prompt_scores=of_prompt(1, 2))
    if streams:
        (choice,) = [each["choices"][0] for each in streamed(answer, first)]
    else:
        answer.add(0, answer.counted(first))
        choice = answer.whole()["choices"][0]

    assert choice["text"] == "Hello world!"
    assert choice["logprobs"] == {
        "tokens": ["Hello", " world", "!"],
        "token_logprobs": [None, -0.5, -0.5],
        "top_logprobs": [None, {" world": -0.5}, {"!": -0.5}],
        "text_offset": [0, 5, 11],
    }


def test_no_tokens_asked_for_are_none_told() -> None:
    body = b'{"model": "m", "prompt": "Hello", "echo": true, "logprobs": 0, "max_tokens": 0}'
    answer = made(decode(body, CompletionRequest), 1, echoes=["Hello world"])
    first = replace(delta(3, scored=True, reason="stop"), prompt_scores=of_prompt(1, 2))
    answer.add(0, answer.counted(first))
    whole = answer.whole()

    assert whole["usage"]["completion_tokens"] == 0
    assert whole["choices"][0]["text"] == "Hello world"
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["choices"][0]["logprobs"]["tokens"] == ["Hello", " world"]
