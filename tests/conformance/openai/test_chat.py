"""`/v1/chat/completions` as OpenAI's API reference has it, with OpenAI's own client."""

from __future__ import annotations

import json
import math
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
COLOURS = [{"role": "user", "content": "Name three colors."}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "size": {"enum": [1, 2, 3]}},
    "required": ["city", "size"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}


def chat(client: openai.OpenAI, messages: Any = FRANCE, **fields: Any) -> ChatCompletion:
    fields = {"model": "assistant", "temperature": 0, "max_tokens": 16} | fields
    found = client.chat.completions.create(messages=messages, **fields)
    assert isinstance(found, ChatCompletion)
    return found


def chunks(client: openai.OpenAI, messages: Any = FRANCE, **fields: Any) -> list[Any]:
    fields = {"model": "assistant", "temperature": 0, "max_tokens": 16, "stream": True} | fields
    return list(client.chat.completions.create(messages=messages, **fields))


def text_of(found: list[Any], index: int = 0) -> str:
    pieces = [c for chunk in found for c in chunk.choices if c.index == index]
    return "".join(piece.delta.content or "" for piece in pieces)


def refused(client: openai.OpenAI, status: int = 400, **fields: Any) -> dict[str, Any]:
    with pytest.raises(openai.APIStatusError) as caught:
        chat(client, **fields)
    assert caught.value.status_code == status
    error = caught.value.response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.slice
def test_an_answer_has_the_published_shape(client: openai.OpenAI) -> None:
    found = chat(client)

    assert found.id.startswith("chatcmpl-")
    assert found.object == "chat.completion"
    assert found.created > 1_700_000_000
    assert found.model == "assistant"
    assert [choice.index for choice in found.choices] == [0]
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].message.content == "The capital of France is Paris."
    assert found.choices[0].message.tool_calls is None
    assert found.choices[0].logprobs is None
    assert found.choices[0].finish_reason == "stop"


def test_usage_counts_prompt_and_completion(client: openai.OpenAI) -> None:
    usage = chat(client).usage

    assert usage is not None
    assert usage.prompt_tokens == 37
    assert usage.completion_tokens == 8
    assert usage.total_tokens == 45


def test_ids_differ(client: openai.OpenAI) -> None:
    assert chat(client, max_tokens=1).id != chat(client, max_tokens=1).id


def test_max_tokens_ends_with_length(client: openai.OpenAI) -> None:
    found = chat(client, max_tokens=3)

    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert found.usage.completion_tokens == 3


def test_max_completion_tokens_goes_before_max_tokens(client: openai.OpenAI) -> None:
    found = chat(client, max_completion_tokens=2, max_tokens=9)

    assert found.usage is not None
    assert found.usage.completion_tokens == 2


def test_content_parts_are_joined(client: openai.OpenAI) -> None:
    parts = [
        {"type": "text", "text": "What is the capital "},
        {"type": "text", "text": "of France?"},
    ]

    assert chat(client, [{"role": "user", "content": parts}]).choices[0].message.content == (
        "The capital of France is Paris."
    )


def test_a_system_message_replaces_the_models_own(client: openai.OpenAI) -> None:
    own = chat(client, max_tokens=1).usage
    said = chat(client, [{"role": "system", "content": "x"}, *FRANCE], max_tokens=1).usage

    assert own is not None
    assert said is not None
    assert said.prompt_tokens < own.prompt_tokens


def test_developer_counts_as_system(client: openai.OpenAI) -> None:
    counts = [
        chat(client, [{"role": role, "content": "x"}, *FRANCE], max_tokens=1).usage
        for role in ("system", "developer")
    ]

    assert counts[0] == counts[1]


def test_a_conversation_goes_on(client: openai.OpenAI) -> None:
    turns = [
        *FRANCE,
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And of Italy?"},
    ]

    assert "Rome" in (chat(client, turns).choices[0].message.content or "")


def test_n_gives_that_many_choices(client: openai.OpenAI) -> None:
    found = chat(client, n=3, temperature=1.0, max_tokens=4)

    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert found.usage is not None
    assert found.usage.completion_tokens <= 12


@pytest.mark.slice
def test_a_seed_repeats_an_answer(client: openai.OpenAI) -> None:
    answers = {
        chat(client, COLOURS, temperature=1.5, seed=7, max_tokens=12).choices[0].message.content
        for _ in range(3)
    }

    assert len(answers) == 1


def test_seeds_differ(client: openai.OpenAI) -> None:
    answers = {
        chat(client, COLOURS, temperature=1.8, seed=seed, max_tokens=12).choices[0].message.content
        for seed in range(4)
    }

    assert len(answers) > 1


def test_temperature_zero_repeats_itself(client: openai.OpenAI) -> None:
    assert len({chat(client, COLOURS).choices[0].message.content for _ in range(3)}) == 1


def test_a_tiny_top_p_is_greedy(client: openai.OpenAI) -> None:
    sharp = chat(client, COLOURS, temperature=1.0, top_p=1e-6).choices[0].message.content

    assert sharp == chat(client, COLOURS).choices[0].message.content


def test_top_k_of_one_is_greedy(client: openai.OpenAI) -> None:
    sharp = chat(client, COLOURS, temperature=1.0, extra_body={"top_k": 1})

    assert sharp.choices[0].message.content == chat(client, COLOURS).choices[0].message.content


@pytest.mark.slice
def test_a_stop_string_ends_the_text_before_it(client: openai.OpenAI) -> None:
    found = chat(client, stop=" France").choices[0]

    assert found.message.content == "The capital of"
    assert found.finish_reason == "stop"


def test_the_first_of_several_stops_counts(client: openai.OpenAI) -> None:
    assert chat(client, stop=["Paris", " is"]).choices[0].message.content == (
        "The capital of France"
    )


def test_a_stop_across_tokens_is_found(client: openai.OpenAI) -> None:
    assert chat(client, stop=["ital of Fr"]).choices[0].message.content == "The cap"


def test_a_bias_of_a_hundred_decides(client: openai.OpenAI) -> None:
    found = chat(client, logit_bias={"28": 100}, max_tokens=3)

    assert found.choices[0].message.content == ",,,"


def test_a_bias_of_minus_a_hundred_bans(client: openai.OpenAI) -> None:
    assert "The" not in (chat(client, logit_bias={"504": -100}).choices[0].message.content or "")


def test_penalties_change_what_repeats(client: openai.OpenAI) -> None:
    asked = [{"role": "user", "content": "Say la la la la la la la la."}]
    plain = chat(client, asked, max_tokens=32).choices[0].message.content
    heavy = (
        chat(client, asked, max_tokens=32, frequency_penalty=2.0, presence_penalty=2.0)
        .choices[0]
        .message.content
    )

    assert plain != heavy


@pytest.mark.slice
def test_logprobs_are_of_the_chosen_tokens(client: openai.OpenAI) -> None:
    logprobs = chat(client, logprobs=True, top_logprobs=3).choices[0].logprobs

    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(each.token for each in logprobs.content[:7]) == "The capital of France is Paris."
    for each in logprobs.content:
        assert each.logprob <= 0
        assert len(each.top_logprobs) == 3
        assert each.top_logprobs[0].logprob >= each.top_logprobs[1].logprob
        # Greedy: the chosen one is the likeliest.
        assert math.isclose(each.top_logprobs[0].logprob, each.logprob, abs_tol=1e-4)
        assert bytes(each.bytes or []).decode() == each.token


def test_top_logprobs_of_zero_is_an_empty_list(client: openai.OpenAI) -> None:
    logprobs = chat(client, logprobs=True, top_logprobs=0).choices[0].logprobs

    assert logprobs is not None
    assert logprobs.content is not None
    assert all(each.top_logprobs == [] for each in logprobs.content)


def test_logprobs_without_top_logprobs_are_allowed(client: openai.OpenAI) -> None:
    logprobs = chat(client, logprobs=True).choices[0].logprobs

    assert logprobs is not None
    assert logprobs.content


@pytest.mark.slice
def test_a_stream_says_what_the_answer_says(client: openai.OpenAI) -> None:
    found = chunks(client)

    assert text_of(found) == chat(client).choices[0].message.content
    assert len(found) > 5
    assert {chunk.object for chunk in found} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in found}) == 1


def test_the_first_chunk_has_the_role_alone(client: openai.OpenAI) -> None:
    found = chunks(client)

    assert found[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in found[1:])


def test_a_finish_reason_comes_once_a_choice(client: openai.OpenAI) -> None:
    found = chunks(client, n=2, temperature=1.0)

    for index in (0, 1):
        reasons = [
            choice.finish_reason
            for chunk in found
            for choice in chunk.choices
            if choice.index == index and choice.finish_reason
        ]
        assert len(reasons) == 1


def test_a_stream_has_no_usage_unless_asked(client: openai.OpenAI) -> None:
    assert all(chunk.usage is None for chunk in chunks(client))


@pytest.mark.slice
def test_include_usage_adds_a_last_chunk_without_choices(client: openai.OpenAI) -> None:
    found = chunks(client, stream_options={"include_usage": True})

    assert found[-1].choices == []
    assert found[-1].usage.total_tokens == 45
    assert all(chunk.usage is None for chunk in found[:-1])


def test_continuous_usage_counts_up(client: openai.OpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [chunk.usage.completion_tokens for chunk in chunks(client, stream_options=options)]

    assert counts == sorted(counts)
    assert counts[-1] == 8


def test_streamed_logprobs_are_those_of_the_answer(client: openai.OpenAI) -> None:
    found = chunks(client, logprobs=True, top_logprobs=1)
    tokens = [
        each.token
        for chunk in found
        for choice in chunk.choices
        if choice.logprobs
        for each in choice.logprobs.content
    ]
    whole = chat(client, logprobs=True, top_logprobs=1).choices[0].logprobs

    assert whole is not None
    assert whole.content is not None
    assert tokens == [each.token for each in whole.content]


def test_a_stop_string_never_shows_in_a_stream(client: openai.OpenAI) -> None:
    assert text_of(chunks(client, stop="ital of Fr")) == "The cap"


def test_choices_of_a_stream_are_those_of_the_answer(client: openai.OpenAI) -> None:
    found = chunks(client, n=2, seed=5, temperature=1.0)
    whole = chat(client, n=2, seed=5, temperature=1.0)

    assert [text_of(found, index) for index in (0, 1)] == [
        choice.message.content for choice in whole.choices
    ]


def test_characters_of_several_tokens_arrive_whole(client: openai.OpenAI) -> None:
    asked = [{"role": "user", "content": "Repeat exactly: 😀🎉日本語"}]
    found = chunks(client, asked, max_tokens=40)

    assert "\ufffd" not in text_of(found[:-2])
    assert text_of(found) == chat(client, asked, max_tokens=40).choices[0].message.content


@pytest.mark.slice
def test_a_json_schema_is_followed(client: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    found = chat(client, response_format=wanted, max_tokens=64).choices[0]

    parsed = json.loads(found.message.content or "")
    assert set(parsed) == {"city", "size"}
    assert parsed["size"] in (1, 2, 3)
    assert found.finish_reason == "stop"


def test_a_streamed_json_schema_is_followed(client: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}

    assert set(json.loads(text_of(chunks(client, response_format=wanted, max_tokens=64)))) == {
        "city",
        "size",
    }


def test_sampled_json_follows_its_schema_too(client: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    found = chat(client, response_format=wanted, max_tokens=64, temperature=1.3, n=3)

    for choice in found.choices:
        assert set(json.loads(choice.message.content or "")) == {"city", "size"}


def test_json_object_begins_an_object(client: openai.OpenAI) -> None:
    found = chat(client, response_format={"type": "json_object"}, max_tokens=24)

    assert (found.choices[0].message.content or "").startswith("{")


def test_format_text_changes_nothing(client: openai.OpenAI) -> None:
    found = chat(client, response_format={"type": "text"})

    assert found.choices[0].message.content == chat(client).choices[0].message.content


@pytest.mark.slice
def test_a_named_function_is_called_with_fitting_arguments(client: openai.OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    found = chat(client, tools=[WEATHER, TIME], tool_choice=choice, max_tokens=64).choices[0]

    assert found.message.tool_calls is not None
    (call,) = found.message.tool_calls
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    assert found.finish_reason == "stop"


def test_required_calls_one_of_the_functions(client: openai.OpenAI) -> None:
    found = chat(
        client,
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=64,
    ).choices[0]

    assert found.message.tool_calls is not None
    assert found.message.tool_calls[0].function.name == "get_weather"
    assert set(json.loads(found.message.tool_calls[0].function.arguments)) == {"city"}
    assert found.finish_reason == "tool_calls"


def test_a_streamed_call_puts_itself_together(client: openai.OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    found = chunks(client, tools=[WEATHER], tool_choice=choice, max_tokens=64)
    calls = [
        call for chunk in found for each in chunk.choices for call in each.delta.tool_calls or ()
    ]

    assert calls[0].function.name == "get_weather"
    assert calls[0].id
    assert {call.index for call in calls} == {0}
    assert all(call.function.name is None for call in calls[1:])
    arguments = "".join(call.function.arguments or "" for call in calls)
    assert set(json.loads(arguments)) == {"city"}


def test_a_streamed_required_call_puts_itself_together(client: openai.OpenAI) -> None:
    found = chunks(
        client,
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=64,
    )
    calls = [
        call for chunk in found for each in chunk.choices for call in each.delta.tool_calls or ()
    ]

    assert calls[0].function.name == "get_weather"
    assert set(json.loads("".join(call.function.arguments or "" for call in calls))) == {"city"}


def test_tool_choice_none_speaks(client: openai.OpenAI) -> None:
    found = chat(client, tools=[WEATHER], tool_choice="none").choices[0]

    assert found.message.tool_calls is None
    assert found.message.content == "The capital of France is Paris."


def test_auto_may_speak_or_call(client: openai.OpenAI) -> None:
    found = chat(client, tools=[WEATHER], max_tokens=32).choices[0]

    assert found.message.content is not None or found.message.tool_calls


def test_an_answer_of_a_tool_is_understood(client: openai.OpenAI) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    turns = [
        {"role": "user", "content": "Weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]

    assert chat(client, turns, tools=[WEATHER]).choices[0].message.role == "assistant"


def test_unknown_and_idle_fields_are_ignored(client: openai.OpenAI) -> None:
    found = chat(
        client,
        user="me",
        service_tier="auto",
        extra_body={"nobody_knows": 1, "metadata": {"a": "b"}},
    )

    assert found.choices[0].message.content == "The capital of France is Paris."


@pytest.mark.slice
def test_an_unknown_model_is_404(client: openai.OpenAI) -> None:
    error = refused(client, 404, model="nobody")

    assert error["message"] == "The model `nobody` does not exist"
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"


def test_a_model_that_generates_nothing_is_refused(client: openai.OpenAI) -> None:
    assert refused(client, model="text-embedder")["param"] == "model"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("n", 0),
        ("max_tokens", -5),
        ("max_tokens", 0),
        ("max_completion_tokens", -1),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -3),
        ("top_logprobs", 21),
        ("stop", [""]),
        ("stop", ["a"] * 17),
        ("logit_bias", {"1": 101}),
        ("logit_bias", {"word": 1}),
        ("logit_bias", {"49152": 1}),
        ("stream_options", {"include_usage": True}),
        ("tool_choice", "required"),
        ("seed", "seven"),
    ],
)
def test_a_value_out_of_range_is_refused_naming_the_field(
    client: openai.OpenAI, field: str, value: object
) -> None:
    fields: dict[str, Any] = {field: value}
    if field == "top_logprobs":
        fields["logprobs"] = True

    error = refused(client, **fields)

    assert error["type"] == "invalid_request_error"
    assert str(error["param"]).startswith(field)


def test_top_logprobs_need_logprobs(client: openai.OpenAI) -> None:
    assert refused(client, top_logprobs=1)["param"] == "top_logprobs"


def test_no_messages_are_refused(client: openai.OpenAI) -> None:
    assert refused(client, messages=[])["param"] == "messages"


def test_an_unknown_role_is_refused(client: openai.OpenAI) -> None:
    error = refused(client, messages=[{"role": "oracle", "content": "x"}])

    assert error["param"] == "messages[0].role"


def test_a_picture_is_refused(client: openai.OpenAI) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}

    assert "image_url" in refused(client, messages=[{"role": "user", "content": [part]}])["message"]


@pytest.mark.slice
def test_a_prompt_that_is_too_long_is_refused(client: openai.OpenAI) -> None:
    error = refused(client, messages=[{"role": "user", "content": "word " * 2000}])

    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"


def test_prompt_and_answer_must_fit_together(client: openai.OpenAI) -> None:
    assert refused(client, max_tokens=1020)["code"] == "context_length_exceeded"


def test_a_schema_that_cannot_be_is_refused(client: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objct"}}}
    error = refused(client, response_format=wanted)

    assert error["param"] == "response_format"
    assert "objct" in error["message"]


def test_a_schema_format_without_a_schema_is_refused(client: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x"}}

    assert refused(client, response_format=wanted)["param"] == "response_format.json_schema"


def test_an_unknown_function_cannot_be_demanded(client: openai.OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "nothing"}}

    assert refused(client, tools=[WEATHER], tool_choice=choice)["param"] == "tool_choice"


def test_errors_of_a_stream_come_with_their_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        chunks(client, max_tokens=4000)
