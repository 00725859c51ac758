"""OpenAI's client by its helpers and its wrappers, and requests as other libraries shape them."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.conformance.openai.test_chat import chat
from tests.conformance.openai.test_extras import PARIS
from tests.e2e.running import Running

ASKED: Any = [{"role": "user", "content": "What is the capital of France? Answer shortly."}]


class Fact(BaseModel):
    """Nothing in it can be written without an end."""

    city: Literal["Paris", "Rome"]
    is_capital: bool


TOOL: Any = openai.pydantic_function_tool(Fact)
OTHER: Any = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}
FIXED: dict[str, Any] = {"model": "assistant", "messages": ASKED, "temperature": 0}


def test_an_answer_is_parsed_into_a_class(client: openai.OpenAI) -> None:
    found = client.chat.completions.parse(response_format=Fact, max_tokens=40, **FIXED)

    assert isinstance(found.choices[0].message.parsed, Fact)


def test_a_call_is_parsed_into_a_class(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "Fact"}}
    found = client.chat.completions.parse(tools=[TOOL], tool_choice=choice, max_tokens=40, **FIXED)

    (call,) = found.choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, Fact)


def test_the_helper_of_streams_puts_an_answer_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        response_format=Fact, max_tokens=40, stream_options={"include_usage": True}, **FIXED
    ) as stream:
        kinds = {event.type for event in stream}
        found = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert isinstance(found.choices[0].message.parsed, Fact)
    assert found.usage is not None
    assert found.usage.completion_tokens > 0


def test_raw_answers_have_the_id_of_their_request(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(max_tokens=2, **FIXED)
    assert raw.headers["x-request-id"] == raw.request_id
    assert raw.parse().choices[0].finish_reason == "length"

    with client.chat.completions.with_streaming_response.create(
        max_tokens=2, stream=True, **FIXED
    ) as streamed:
        lines = list(streamed.iter_lines())
    assert "data: [DONE]" in lines


def test_asynchronous_callers_are_answered_together(llm: Running) -> None:
    async def all_of_them() -> list[str]:
        made = openai.AsyncOpenAI(
            base_url=f"{llm.http}/v1", api_key="unused", max_retries=0, timeout=120
        )

        async def one() -> str:
            stream = await made.chat.completions.create(stream=True, max_tokens=12, **FIXED)
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return "".join(parts)

        async with made:
            return await asyncio.gather(*(one() for _ in range(4)))

    assert len(set(asyncio.run(all_of_them()))) == 1


def test_a_history_goes_back_as_it_came(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "Fact"}}
    first = client.chat.completions.create(tools=[TOOL], tool_choice=choice, max_tokens=40, **FIXED)
    said = first.choices[0].message
    assert said.tool_calls
    history: Any = [
        *ASKED,
        {"role": "assistant", "content": None},
        said.model_dump(),
        {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "it is"},
    ]

    found = client.chat.completions.create(**FIXED | {"messages": history, "max_tokens": 2})

    assert found.choices[0].finish_reason == "length"


def test_of_allowed_tools_one_is_called(client: openai.OpenAI) -> None:
    allowed = [{"type": "function", "function": {"name": "Fact"}}]
    choice: Any = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": allowed},
    }
    found = client.chat.completions.create(
        tools=[OTHER, TOOL],
        tool_choice=choice,
        parallel_tool_calls=False,
        max_tokens=60,
        **FIXED,
    )

    assert [each.function.name for each in found.choices[0].message.tool_calls or ()] == ["Fact"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "value"),
    [("functions", [{"name": "f"}]), ("modalities", ["audio"]), ("use_beam_search", True)],
)
def test_what_the_model_cannot_do_is_refused_by_name(
    client: openai.OpenAI, name: str, value: object
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, extra_body={name: value})

    assert caught.value.param == name


def test_what_ends_an_answer_is_left_out_or_shown(llm: Running, client: openai.OpenAI) -> None:
    def said(**more: object) -> str:
        return chat(client, max_tokens=20, extra_body=more).choices[0].message.content or ""

    end = chat(client, max_tokens=20, logprobs=True).choices[0].logprobs.content[-1].token
    assert said() == PARIS
    shown = {"include_stop_str_in_output": True, "skip_special_tokens": False}
    assert said(**shown) == PARIS + end
    # The third token of the answer, which is no special one.
    body = {"model": "assistant", "prompt": PARIS}
    third = httpx.post(f"{llm.http}/tokenize", json=body, timeout=60).json()["tokens"][2]
    cut = said(stop_token_ids=[third])
    assert PARIS.startswith(cut)
    assert cut != said(stop_token_ids=[third], include_stop_str_in_output=True)
    assert said(stop_token_ids=[third], include_stop_str_in_output=True).startswith(cut)
    # What is generated after the end is what the model gives, the end itself included.
    beyond = said(ignore_eos=True, skip_special_tokens=False)
    assert beyond.startswith(PARIS + end)
    assert len(beyond) > len(PARIS + end)
