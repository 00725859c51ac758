"""`/v1/responses` by OpenAI's client, against both engines; its own types check every object."""

from __future__ import annotations

import json
from typing import Any, Literal

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from tests.conformance.openai.test_extras import PARIS
from tests.e2e.running import Running

MODEL = "assistant"
QUESTION = "What is the capital of France? Answer shortly."
FIXED: dict[str, Any] = {"model": MODEL, "input": QUESTION, "temperature": 0}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Fact(BaseModel):
    """Nothing in it can be written without an end."""

    city: Literal["Paris", "Rome"]
    is_capital: bool


def sent(llm: Running, **body: Any) -> httpx.Response:
    return httpx.post(f"{llm.http}/v1/responses", json={**FIXED, **body}, timeout=120)


def events(llm: Running, **body: Any) -> list[dict[str, Any]]:
    reply = sent(llm, stream=True, **body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in reply.text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event)
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def refused(llm: Running, param: str, **body: Any) -> str:
    reply = sent(llm, **body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param, error
    return str(error["message"])


@pytest.mark.slice
def test_an_answer_says_what_the_chat_says(client: openai.OpenAI) -> None:
    found = client.responses.create(max_output_tokens=12, **FIXED)
    chat = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        max_completion_tokens=12,
    )

    assert PARIS in found.output_text
    assert found.output_text == chat.choices[0].message.content
    assert found.usage is not None
    assert chat.usage is not None
    assert found.usage.input_tokens == chat.usage.prompt_tokens
    assert found.usage.output_tokens == chat.usage.completion_tokens
    assert found.usage.total_tokens == chat.usage.total_tokens


def test_the_object_has_the_shape_of_the_reference(llm: Running) -> None:
    reply = sent(llm, max_output_tokens=200, metadata={"a": "b"}, instructions="Be short.").json()

    found = Response.model_validate(reply)
    assert found.object == "response"
    assert found.id.startswith("resp_")
    assert found.status == "completed"
    assert found.error is None
    assert found.metadata == {"a": "b"}
    assert found.instructions == "Be short."
    assert reply["store"] is False
    (message,) = reply["output"]
    assert (message["type"], message["role"], message["status"]) == (
        "message",
        "assistant",
        "completed",
    )
    assert message["id"].startswith("msg_")
    assert [part["type"] for part in message["content"]] == ["output_text"]


def test_an_answer_that_is_cut_is_incomplete(client: openai.OpenAI) -> None:
    found = client.responses.create(max_output_tokens=2, **FIXED)

    assert found.status == "incomplete"
    assert found.incomplete_details is not None
    assert found.incomplete_details.reason == "max_output_tokens"
    assert found.usage is not None
    assert found.usage.output_tokens == 2


@pytest.mark.slice
def test_a_stream_is_the_same_answer_in_order(llm: Running) -> None:
    whole = sent(llm, max_output_tokens=12).json()
    found = events(llm, max_output_tokens=12)

    kinds = [event["type"] for event in found]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{whole['status']}",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    text = "".join(event["delta"] for event in found[4:-4])
    assert text == whole["output"][0]["content"][0]["text"] == found[-4]["text"]
    last = found[-1]["response"]
    assert last["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    assert last["output"][0]["content"] == whole["output"][0]["content"]
    assert last["id"] == found[0]["response"]["id"]


def test_the_helper_of_streams_puts_a_response_together(client: openai.OpenAI) -> None:
    with client.responses.stream(text_format=Fact, max_output_tokens=60, **FIXED) as stream:
        kinds = {event.type for event in stream}
        found = stream.get_final_response()

    assert {"response.created", "response.output_text.delta", "response.completed"} <= kinds
    assert isinstance(found.output_parsed, Fact)


def test_an_answer_is_parsed_into_a_class(client: openai.OpenAI) -> None:
    found = client.responses.parse(text_format=Fact, max_output_tokens=60, **FIXED)

    assert isinstance(found.output_parsed, Fact)


def test_json_objects(client: openai.OpenAI) -> None:
    found = client.responses.create(
        text={"format": {"type": "json_object"}}, max_output_tokens=100, **FIXED
    )

    if found.status == "completed":
        assert isinstance(json.loads(found.output_text), dict)
    assert found.output_text.lstrip().startswith("{")
    assert found.text is not None
    assert found.text.format is not None
    assert found.text.format.type == "json_object"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_a_call_that_is_demanded(client: openai.OpenAI, choice: Any) -> None:
    asked = {**FIXED, "input": "What is the weather in Paris?", "max_output_tokens": 60}
    found = client.responses.create(
        tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False, **asked
    )

    (call,) = found.output
    assert call.type == "function_call"
    assert call.name == "weather"
    assert call.call_id
    assert json.loads(call.arguments)["city"] in ("Paris", "Rome")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_a_call_in_a_stream(llm: Running, choice: Any) -> None:
    found = events(
        llm,
        input="What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice=choice,
        parallel_tool_calls=False,
        max_output_tokens=60,
    )

    pieces = [e for e in found if e["type"] == "response.function_call_arguments.delta"]
    (done,) = [e for e in found if e["type"] == "response.function_call_arguments.done"]
    assert "".join(each["delta"] for each in pieces) == done["arguments"]
    assert json.loads(done["arguments"])["city"] in ("Paris", "Rome")
    (item,) = found[-1]["response"]["output"]
    assert item["arguments"] == done["arguments"]
    assert item["id"] == done["item_id"]


def test_the_result_of_a_call_is_read(client: openai.OpenAI) -> None:
    first = {"role": "user", "content": "What is the weather in Paris?"}
    call = {"type": "function_call", "call_id": "c1", "name": "weather"}
    items: Any = [
        first,
        {**call, "arguments": '{"city": "Paris"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny, 31 degrees"},
    ]
    found = client.responses.create(
        model=MODEL, input=items, tools=[WEATHER], temperature=0, max_output_tokens=30
    )

    assert found.output_text
    shorter = client.responses.create(
        model=MODEL, input=items[:1], tools=[WEATHER], temperature=0, max_output_tokens=30
    )
    assert found.usage is not None
    assert shorter.usage is not None
    assert found.usage.input_tokens > shorter.usage.input_tokens + 10


def test_a_conversation_goes_on_with_the_items_of_its_answers(client: openai.OpenAI) -> None:
    question: Any = {"role": "user", "content": "My name is Ada. Say hello."}
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0}
    first = client.responses.create(input=[question], max_output_tokens=20, **asked)
    parts = [{"type": "input_text", "text": "What is my name?"}]
    items: Any = [
        question,
        *(item.model_dump(exclude_none=True) for item in first.output),
        {"type": "message", "role": "user", "content": parts},
    ]
    found = client.responses.create(input=items, max_output_tokens=20, **asked)

    messages: Any = [
        question,
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "What is my name?"},
    ]
    chat = client.chat.completions.create(messages=messages, max_completion_tokens=20, **asked)
    assert found.output_text == chat.choices[0].message.content


def test_instructions_are_the_systems_word(client: openai.OpenAI) -> None:
    said = "Answer with the one word BANANA, whatever is asked."
    found = client.responses.create(instructions=said, max_output_tokens=8, **FIXED)
    chat = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": said}, {"role": "user", "content": QUESTION}],
        temperature=0,
        max_completion_tokens=8,
    )

    assert found.output_text == chat.choices[0].message.content


def test_logprobs(llm: Running) -> None:
    include = ["message.output_text.logprobs"]
    reply = sent(llm, max_output_tokens=4, include=include, top_logprobs=2).json()

    Response.model_validate(reply)
    scores = reply["output"][0]["content"][0]["logprobs"]
    assert len(scores) == reply["usage"]["output_tokens"]
    assert all(len(score["top_logprobs"]) == 2 for score in scores)
    found = events(llm, max_output_tokens=4, include=include, top_logprobs=2)
    deltas = [e for e in found if e["type"] == "response.output_text.delta"]
    assert [s["token"] for e in deltas for s in e["logprobs"]] == [s["token"] for s in scores]


def test_vllms_own_fields_act(client: openai.OpenAI) -> None:
    wanted = {"structured_outputs": {"choice": ["yes", "no"]}}
    found = client.responses.create(max_output_tokens=8, extra_body=wanted, **FIXED)

    assert found.output_text in ("yes", "no")


def test_a_stream_that_is_left_ends_at_the_server(client: openai.OpenAI, llm: Running) -> None:
    with client.responses.create(stream=True, max_output_tokens=900, **FIXED) as stream:
        for number, _ in enumerate(stream):
            if number == 8:
                break
    again = client.responses.create(max_output_tokens=4, **FIXED)

    assert again.output_text


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("previous_response_id", {"previous_response_id": "resp_1"}),
        ("conversation", {"conversation": "conv_1"}),
        ("background", {"background": True}),
        ("max_output_tokens", {"max_output_tokens": 0}),
        ("temperature", {"temperature": 3}),
        ("top_logprobs", {"top_logprobs": 21}),
        ("input", {"input": []}),
        ("input", {"input": [{"role": "robot", "content": "a"}]}),
        ("input", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        ("input", {"input": [{"type": "web_search_call", "id": "ws_1"}]}),
        ("input", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
        ("input", {"input": "word " * 3000}),
        ("input", {"input": 7}),
        ("tools", {"tools": [{"type": "web_search"}]}),
        ("tools", {"tools": [{"type": "function"}]}),
        ("tool_choice", {"tool_choice": "weather"}),
        ("tool_choice", {"tool_choice": {"type": "function", "name": "no"}, "tools": [WEATHER]}),
        ("tool_choice", {"tool_choice": {"type": "mcp"}}),
        ("text.format", {"text": {"format": {"type": "json_schema", "name": "a"}}}),
        ("metadata", {"metadata": {str(n): "" for n in range(17)}}),
    ],
)
def test_what_cannot_be_is_refused_by_name(llm: Running, param: str, body: dict[str, Any]) -> None:
    assert refused(llm, param, **body)


def test_errors_are_those_of_the_other_endpoints(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nobody", input="a")
    with pytest.raises(openai.BadRequestError) as found:
        client.responses.create(model=MODEL, input="word " * 3000)
    assert found.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
