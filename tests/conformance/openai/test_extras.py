"""vLLM's own fields, guided texts, priorities and deadlines, with OpenAI's client and over V2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.conformance.openai.test_chat import FRANCE, chat, chunks, refused
from tests.e2e.running import Running

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
PARIS = "The capital of France is Paris."


@pytest.fixture
def http(llm: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=llm.http, timeout=120) as made:
        yield made


def guided(client: openai.OpenAI, **wanted: object) -> str:
    found = chat(client, max_tokens=40, extra_body={"structured_outputs": wanted})
    return found.choices[0].message.content or ""


def test_a_text_is_one_of_the_choices(client: openai.OpenAI) -> None:
    assert guided(client, choice=["Rome (Italy)", "Oslo"]) in ("Rome (Italy)", "Oslo")


def test_a_text_follows_a_regular_expression(client: openai.OpenAI) -> None:
    said = guided(client, regex=r"[0-9]{3}-[a-f]{2}")

    assert len(said) == 6
    assert said[3] == "-"


def test_a_text_follows_a_grammar(client: openai.OpenAI) -> None:
    assert guided(client, grammar='start: "x" ("y" | "z")') in ("xy", "xz")


def test_a_text_follows_a_schema(client: openai.OpenAI) -> None:
    assert json.loads(guided(client, json={"enum": [7, 8]})) in (7, 8)


@pytest.mark.parametrize(
    "wanted", [{"regex": "a("}, {"grammar": "nonsense"}, {"json": {"type": 1}}, {"other": 1}, {}]
)
def test_guidance_that_cannot_be_is_refused(client: openai.OpenAI, wanted: object) -> None:
    error = refused(client, extra_body={"structured_outputs": wanted})

    assert str(error["param"]).startswith("structured_outputs")


@pytest.mark.parametrize(
    ("name", "value"),
    [("bad_words", ["Paris"]), ("prompt_logprobs", 1), ("chat_template", "x"), ("priority", -1)],
)
def test_what_is_not_kept_is_refused_by_name(
    client: openai.OpenAI, name: str, value: object
) -> None:
    assert refused(client, extra_body={name: value})["param"] == name


def test_a_callers_template_is_not_run(client: openai.OpenAI) -> None:
    error = refused(client, extra_body={"chat_template_kwargs": {"chat_template": ENDLESS}})

    assert error["param"] == "chat_template_kwargs"
    assert chat(client).choices[0].message.content == PARIS


def test_only_allowed_tokens_are_generated(client: openai.OpenAI) -> None:
    found = chat(client, max_tokens=5, extra_body={"allowed_token_ids": [28, 29]}, logprobs=True)

    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert len({each.token for each in logprobs.content or ()}) <= 2


@pytest.mark.parametrize("name", ["stop_token_ids", "allowed_token_ids"])
def test_tokens_that_are_none_are_refused(client: openai.OpenAI, name: str) -> None:
    assert refused(client, extra_body={name: [10**7], "min_tokens": 2})["param"] == name


def test_strange_sampling_harms_nobody(client: openai.OpenAI) -> None:
    shapes = []
    for fields in (
        {"temperature": 1.0, "extra_body": {"repetition_penalty": 1e-40}},
        {"temperature": 1.1e-5, "presence_penalty": -2},
        {
            "temperature": 1.0,
            "extra_body": {"structured_outputs": {"choice": ["a"]}, "min_tokens": 9},
        },
    ):
        try:
            chat(client, **fields)
        except openai.APIStatusError as error:
            shapes.append(set(error.response.json()["error"]))
    assert all(shape == {"message", "type", "param", "code"} for shape in shapes)
    assert chat(client).choices[0].message.content == PARIS


def test_min_tokens_holds_off_stops(client: openai.OpenAI) -> None:
    found = chat(client, stop=["capital"], extra_body={"min_tokens": 5})

    assert "capital" in (found.choices[0].message.content or "")


def test_a_prompt_is_cut_to_its_last_tokens(http: httpx.Client) -> None:
    long = {"model": "assistant", "prompt": "one two three " * 2000, "max_tokens": 2}

    assert http.post("/v1/completions", json=long).status_code == 400
    for kept, expected in ((7, 7), (-1, 1022)):
        answer = http.post("/v1/completions", json=long | {"truncate_prompt_tokens": kept})
        assert answer.status_code == 200
        assert answer.json()["usage"]["prompt_tokens"] == expected


def test_bytes_of_a_characters_tokens_are_the_character(client: openai.OpenAI) -> None:
    wanted: Any = {"structured_outputs": {"choice": ["\U0001f9a9\U0001f9a9"]}}
    found = chat(client, logprobs=True, top_logprobs=1, max_tokens=20, extra_body=wanted)

    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    ends = "<|im_end|>", "<|endoftext|>"
    pieces = [bytes(t.bytes or ()) for t in logprobs.content or () if t.token not in ends]
    assert b"".join(pieces).decode() == "\U0001f9a9\U0001f9a9"
    assert len(pieces) > 2


def test_every_prompts_tokens_are_counted(llm: Running, http: httpx.Client) -> None:
    from loadtests.language.leaving import eventually, metric

    before = metric(llm, "squadron_llm_prompt_tokens_total")
    asked = {"model": "assistant", "prompt": [[1, 2, 3], [4, 5]], "max_tokens": 1}
    assert http.post("/v1/completions", json=asked).status_code == 200

    eventually(
        lambda: metric(llm, "squadron_llm_prompt_tokens_total") >= before + 5, "not all counted"
    )


def test_too_many_choices_are_refused(http: httpx.Client) -> None:
    asked = {"model": "assistant", "prompt": ["a"] * 5000, "max_tokens": 1}
    answer = http.post("/v1/completions", json=asked)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


def test_a_deadline_in_a_header_ends_an_answer_and_is_not_tried_again(http: httpx.Client) -> None:
    asked = {"model": "assistant", "prompt": "Count:", "max_tokens": 900, "ignore_eos": True}
    headers = {"x-squadron-timeout-ms": "300"}
    answer = http.post("/v1/completions", json=asked, headers=headers)
    wrong = http.post("/v1/completions", json=asked, headers={"x-squadron-timeout-ms": "soon"})

    assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert wrong.status_code == 400


def test_a_deadline_ends_a_stream_with_an_error_event(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="deadline"):
        chunks(
            client,
            max_tokens=900,
            extra_body={"ignore_eos": True},
            extra_headers={"x-squadron-timeout-ms": "1500"},
        )


def test_a_model_without_a_name_is_no_model(client: openai.OpenAI) -> None:
    assert refused(client, 404, model="")["param"] == "model"


def test_v2_takes_sampling_parameters_in_one(http: httpx.Client) -> None:
    said = json.dumps({"structured_outputs": {"choice": ["yes"]}, "temperature": 0})
    path = "/v2/models/assistant/generate"
    answer = http.post(path, json={"text_input": "Well?", "sampling_parameters": said})
    wrong = http.post(path, json={"text_input": "Well?", "sampling_parameters": "{"})

    assert answer.json()["text_output"] == "yes"
    assert wrong.status_code == 400
    assert "sampling_parameters" in wrong.json()["error"]


def test_tokens_of_a_conversation_with_tools_are_those_of_its_prompt(
    client: openai.OpenAI, http: httpx.Client
) -> None:
    tools: Any = [{"type": "function", "function": {"name": "get_time"}}]
    usage = chat(client, tools=tools, max_tokens=1).usage
    asked = {"model": "assistant", "messages": FRANCE, "tools": tools}

    assert usage is not None
    assert http.post("/tokenize", json=asked).json()["count"] == usage.prompt_tokens
