"""A Response asked for as a chat, and a chat's answer told as a Response."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from cluster.errors import InvalidRequest
from cluster.protocols.openai.requests import ChatRequest, decode
from cluster.protocols.openai.responses.answer import head, response_of
from cluster.protocols.openai.responses.events import ResponseEvents
from cluster.protocols.openai.responses.request import chat_of, own_names, read, written

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 4},
}
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


def asked(**body: Any) -> Any:
    return read(orjson.dumps({"model": "m", "input": "a", **body}))


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    content = {
        "id": "chatcmpl-7",
        "object": "chat.completion.chunk",
        "created": 12,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
        **more,
    }
    return b"data: " + orjson.dumps(content) + b"\n\n"


def call(index: int, **function: str) -> dict[str, Any]:
    first = {"id": f"call_7_0_{index}", "type": "function"} if "name" in function else {}
    return {"tool_calls": [{"index": index, **first, "function": function}]}


LAST = chunk({}, "stop", choices=[], usage=USAGE) + b"data: [DONE]\n\n"


def told(*parts: bytes, **body: Any) -> list[dict[str, Any]]:
    events = ResponseEvents(asked(**body))
    blocks = b"".join(events.add(part) for part in parts).decode().strip().split("\n\n")
    found = [orjson.loads(block.partition("\ndata: ")[2]) for block in blocks]
    for event in found:
        EVENT.validate_python(event)
    return found


def test_every_kind_of_item_is_a_message() -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    messages = chat_of(
        asked(
            instructions="be short",
            input=[
                {"role": "developer", "content": "d"},
                {"role": "user", "content": [{"type": "input_text", "text": "u"}]},
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [
                        {"type": "output_text", "text": "s", "annotations": []},
                        {"type": "refusal", "refusal": "no"},
                    ],
                },
                {**call, "call_id": "1"},
                {**call, "call_id": "2"},
                {"type": "function_call_output", "call_id": "1", "output": "one"},
                {
                    "type": "function_call_output",
                    "call_id": "2",
                    "output": [{"type": "input_text", "text": "two"}],
                },
            ],
        )
    )["messages"]

    function = {"name": "f", "arguments": "{}"}
    assert messages == [
        {"role": "system", "content": "be short"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "u"},
        {
            "role": "assistant",
            "content": "sno",
            "tool_calls": [
                {"id": "1", "type": "function", "function": function},
                {"id": "2", "type": "function", "function": function},
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": "two"},
    ]


def test_every_field_reaches_the_chat() -> None:
    schema = {"type": "object"}
    chat = chat_of(
        asked(
            stream=True,
            max_output_tokens=9,
            temperature=0.5,
            top_logprobs=3,
            tools=[TOOL],
            tool_choice={
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "weather"}],
            },
            parallel_tool_calls=False,
            truncation="auto",
            text={"format": {"type": "json_schema", "name": "n", "schema": schema}},
            top_k=4,
            prompt_cache_key="k",
            structured_outputs=None,
        )
    )
    found = decode(orjson.dumps(chat), ChatRequest)

    assert found.max_completion_tokens == 9
    assert (found.temperature, found.top_k, found.prompt_cache_key) == (0.5, 4, "k")
    assert (found.logprobs, found.top_logprobs) == (True, 3)
    assert found.tool_choice == "auto"
    assert found.parallel_tool_calls is False
    assert found.truncate_prompt_tokens == -1
    assert found.stream_options is not None
    assert found.stream_options.include_usage
    assert found.response_format is not None
    assert found.response_format.json_schema is not None
    assert found.response_format.json_schema.schema == schema


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"previous_response_id": "resp_1"}, "nothing is stored here"),
        ({"input": [{"role": "user"}]}, r"input\[0\]: .*missing required field `content`"),
        ({"input": [{"type": "computer_call"}]}, r"input\[0\]: .*'computer_call'"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "'input_file'"),
        ({"tools": [{"type": "mcp"}]}, r"tools\[0\]: .*'mcp'.*allowed: function"),
        ({"tools": [{"type": "function"}]}, "missing required field `name`"),
        ({"tool_choice": {"type": "hosted"}}, "'hosted'"),
        ({"tool_choice": {"type": "allowed_tools", "tools": 3}}, "none of the tools"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(body: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        decode(written(chat_of(asked(**body))), ChatRequest)


def test_schemas_with_large_numbers_and_many_levels_go_on_as_they_are() -> None:
    schema = b'{"a":' * 300 + b"123456789012345678901234567890" + b"}" * 300
    tool = b'{"type":"function","name":"f","parameters":' + schema + b"}"

    request = read(b'{"model":"m","input":"a","tools":[' + tool + b"]}")

    assert schema in written(chat_of(request))
    assert schema in written(head(request, "resp_1", 1, "m"))


def test_an_error_of_the_chat_names_the_callers_field() -> None:
    error = InvalidRequest("too long", param="messages[3].content", openai_code="c")

    found = own_names(error)

    assert found.details == {"param": "input", "openai_code": "c"}
    assert own_names(InvalidRequest("a", param="top_k")).details == {"param": "top_k"}


def test_a_whole_answer_with_text_and_calls() -> None:
    message = {
        "role": "assistant",
        "content": "so",
        "tool_calls": [
            {"id": "call_7_0_0", "function": {"name": "weather", "arguments": "{}"}},
        ],
    }
    chat = {
        "id": "chatcmpl-7",
        "created": 12,
        "model": "m",
        "usage": USAGE,
        "choices": [{"message": message, "logprobs": None, "finish_reason": "tool_calls"}],
    }

    found = Response.model_validate(response_of(asked(tools=[TOOL]), chat))

    assert [item.type for item in found.output] == ["message", "function_call"]
    assert (found.id, found.status, found.output_text) == ("resp_7", "completed", "so")
    assert found.usage is not None
    assert found.usage.input_tokens_details.cached_tokens == 4


def test_a_stream_with_text_and_two_calls() -> None:
    found = told(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "so"}),
        chunk(call(0, name="weather", arguments="")) + chunk(call(0, arguments='{"a":')),
        chunk(call(0, arguments="1}")),
        chunk(call(1, name="weather", arguments="")),
        chunk({}, "tool_calls"),
        LAST,
    )

    kinds = [event["type"].removeprefix("response.") for event in found]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    places = [event["output_index"] for event in found if "output_index" in event]
    assert places == sorted(places)
    assert set(places) == {0, 1, 2}
    whole = Response.model_validate(found[-1]["response"])
    assert [item.type for item in whole.output] == ["message", "function_call", "function_call"]
    assert [item["arguments"] for item in found[-1]["response"]["output"][1:]] == ['{"a":1}', ""]


def test_a_stream_without_a_word_has_an_empty_message() -> None:
    found = told(chunk({"role": "assistant", "content": ""}), chunk({}, "stop"), LAST)

    whole = Response.model_validate(found[-1]["response"])
    assert (whole.status, whole.output_text) == ("completed", "")
    assert len(whole.output) == 1


def test_a_stream_that_breaks_ends_with_what_was_said() -> None:
    error = {"error": {"message": "the replica is gone", "type": "server_error"}}
    found = told(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "half"}),
        b"data: " + orjson.dumps(error) + b"\n\ndata: [DONE]\n\n",
    )

    assert [event["type"] for event in found[-2:]] == [
        "response.output_item.done",
        "response.failed",
    ]
    whole = Response.model_validate(found[-1]["response"])
    assert whole.status == "failed"
    assert whole.error is not None
    assert whole.error.message == "the replica is gone"
    assert whole.output_text == "half"


def test_an_answer_that_was_cut_is_incomplete() -> None:
    found = told(chunk({"content": "ha"}), chunk({"content": "lf"}, "length"), LAST)

    assert found[-1]["type"] == "response.incomplete"
    whole = Response.model_validate(found[-1]["response"])
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert found[-1]["response"]["output"][0]["status"] == "incomplete"
