from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.errors import DeadlineExceeded, InvalidRequest, ModelNotFound, Overloaded
from cluster.generation import Grammar
from cluster.protocols.openai.errors import error_headers, error_object
from cluster.protocols.openai.requests import ChatRequest, CompletionRequest, decode, prompts
from cluster.protocols.openai.sampling import sampling_of

SIZES: dict[str, int] = {"num_prompt_tokens": 10, "max_model_len": 100, "vocab_size": 50}


def chat(**fields: object) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields
    return decode(json.dumps(body).encode(), ChatRequest)


def complaint(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    return caught.value


def test_a_wrong_type_names_its_field() -> None:
    error = complaint(temperature="hot")

    assert error.details["param"] == "temperature"
    assert "Expected" in error.message


def test_a_field_inside_a_list_is_named_with_its_place() -> None:
    error = complaint(messages=[{"role": "user", "content": "x"}, {"role": "user"}])

    assert error.details["param"] == "messages[1].content"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"nul", b'{"a":' * 5000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(body, ChatRequest)


def test_null_counts_as_left_out() -> None:
    asked = chat(temperature=None, n=None, stop=None, tools=None, max_tokens=None)

    assert sampling_of(asked, **SIZES) == sampling_of(chat(), **SIZES)


def test_an_answer_may_fill_the_context_unless_it_says_less() -> None:
    assert sampling_of(chat(), **SIZES).max_tokens == 90
    assert sampling_of(chat(max_tokens=5), **SIZES).max_tokens == 5
    assert sampling_of(chat(), **SIZES, default_max_tokens=20).max_tokens == 20


def test_a_completion_has_sixteen_tokens_unless_it_says() -> None:
    asked = decode(b'{"model": "m", "prompt": "x"}', CompletionRequest)

    assert sampling_of(asked, **SIZES).max_tokens == 16


def test_what_does_not_fit_is_refused_with_openais_code() -> None:
    with pytest.raises(InvalidRequest, match="maximum context length is 100 tokens") as caught:
        sampling_of(chat(max_tokens=91), **SIZES)

    assert caught.value.details["openai_code"] == "context_length_exceeded"


def test_formats_become_grammars() -> None:
    schema = {"type": "object"}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}

    assert sampling_of(chat(response_format=wanted), **SIZES).grammar == Grammar(
        kind="json_schema", text=json.dumps(schema)
    )
    free = sampling_of(chat(response_format={"type": "json_object"}), **SIZES)
    assert free.grammar == Grammar(kind="json_object")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]])],
)
def test_the_four_forms_of_a_prompt(given: Any, expected: Any) -> None:
    assert prompts(given) == expected


@pytest.mark.parametrize("given", [[], [[]], ["a", [1]], [True], [1.5], [{}]])
def test_other_forms_of_a_prompt_are_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest):
        prompts(given)


def test_a_history_may_have_an_assistant_who_said_nothing_or_refused() -> None:
    said = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]
    asked = chat(messages=said)

    assert isinstance(asked.messages[2].content, list)
    assert asked.messages[2].content[0].said == "no"
    wrong = complaint(messages=[{"role": "user", "content": None}])
    assert wrong.details["param"] == "messages[0].content"


def test_errors_have_openais_fields() -> None:
    error = ModelNotFound("The model `x` does not exist", param="model")

    assert error_object(error) == {
        "error": {
            "message": "The model `x` does not exist",
            "type": "not_found_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_a_passed_deadline_is_not_tried_again_and_an_overload_is() -> None:
    assert error_headers(DeadlineExceeded("late")) == (("x-should-retry", "false"),)
    assert error_headers(Overloaded("full", retry_after_s=2)) == (("Retry-After", "2"),)
