from __future__ import annotations

import json

import pytest

from cluster.errors import InvalidRequest
from cluster.protocols.openai.requests import ChatRequest, decode
from cluster.protocols.openai.tools import (
    Call,
    PlainToolText,
    ToolText,
    demanded_calls,
    tool_grammar,
)

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def asked(**fields: object) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [WEATHER]}
    return decode(json.dumps(body | fields).encode(), ChatRequest)


OTHER = {"type": "function", "function": {"name": "other"}}
ALLOWED = {"type": "function", "function": {"name": "weather"}}


def test_of_allowed_tools_alone_the_model_hears() -> None:
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [ALLOWED]},
    }
    found = asked(tools=[OTHER, WEATHER], tool_choice=choice)

    assert found.tool_choice == "required"
    assert [tool.function.name for tool in found.tools or ()] == ["weather"]


@pytest.mark.parametrize("names", [[], ["nobody"], ["weather", "nobody"]])
def test_allowed_tools_are_among_the_tools(names: list[str]) -> None:
    allowed = [{"type": "function", "function": {"name": name}} for name in names]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": allowed}}

    with pytest.raises(InvalidRequest, match="of the tools") as caught:
        asked(tool_choice=choice)

    assert caught.value.details["param"] == "tool_choice"


def split(*pieces: str) -> tuple[str, list[Call]]:
    """What comes out of pieces, the last of which ends the text."""
    tested = ToolText(["weather"])
    said, calls = "", []
    for number, piece in enumerate(pieces, start=1):
        text, found = tested.add(piece, is_last=number == len(pieces))
        said += text
        calls += found
    return said, calls


def test_a_call_is_taken_out_of_the_text() -> None:
    text = 'Sure. <tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'

    assert split(text) == ("Sure. ", [Call(name="weather", arguments='{"city": "Rome"}')])


def test_pieces_of_any_size_give_the_same() -> None:
    text = 'a<b <tool_call>{"name": "weather", "arguments": {}}</tool_call> c'

    assert split(*text) == split(text) == ("a<b  c", [Call(name="weather", arguments="{}")])


def test_nothing_of_a_tag_is_said_before_it_is_known() -> None:
    tested = ToolText(["weather"])

    assert tested.add("so <tool_") == ("so ", [])
    assert tested.add("box>") == ("<tool_box>", [])


def test_two_calls_are_two() -> None:
    one = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'

    assert len(split(one + one)[1]) == 2


def test_no_more_calls_are_told_than_may_be() -> None:
    one = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'

    assert ToolText(["weather"], most=1).add(one + one, is_last=True)[1] == [
        Call(name="weather", arguments="{}")
    ]


def test_a_name_that_is_no_text_is_no_call() -> None:
    text = '<tool_call>{"name": ["weather"], "arguments": {}}</tool_call>'

    assert split(text) == (text, [])


def plain(*pieces: str) -> tuple[str, list[Call]]:
    """As `split`, of a model that writes calls without a mark."""
    tested = PlainToolText(["weather"])
    said, calls = "", []
    for number, piece in enumerate(pieces, start=1):
        text, found = tested.add(piece, is_last=number == len(pieces))
        said += text
        calls += found
    return said, calls


def test_a_whole_text_of_json_is_calls() -> None:
    rome = '{"name": "weather", "parameters": {"city": "Rome"}}'
    call = Call(name="weather", arguments='{"city": "Rome"}')

    assert plain(rome) == plain(*rome) == ("", [call])
    assert plain(f"{rome}; {rome}") == ("", [call, call])
    assert plain(f"[{rome}, {rome}]") == ("", [call, call])


def test_text_and_other_json_are_said_as_they_come() -> None:
    tested = PlainToolText(["weather"])

    assert tested.add("It is") == ("It is", [])
    assert tested.add(' {"name": "weather"}', is_last=True) == (' {"name": "weather"}', [])
    for other in ('{"name": "other"}', '{"name": "wea', '{"a": 1}', "[1]", "  "):
        assert plain(other) == (other, [])


def test_an_unknown_function_and_broken_json_are_text() -> None:
    unknown = '<tool_call>{"name": "other", "arguments": {}}</tool_call>'
    broken = "<tool_call>weather(</tool_call>"

    assert split(unknown) == (unknown, [])
    assert split(broken) == (broken, [])


def test_a_call_that_is_cut_short_is_text() -> None:
    assert split('<tool_call>{"name": "wea') == ('<tool_call>{"name": "wea', [])


def test_a_demanded_call_is_held_to_the_functions_schema() -> None:
    named = asked(tool_choice={"type": "function", "function": {"name": "weather"}})
    grammar = tool_grammar(named)

    assert grammar is not None
    assert json.loads(grammar.text) == {"type": "object"}


def test_required_is_a_list_of_known_calls() -> None:
    grammar = tool_grammar(asked(tool_choice="required", parallel_tool_calls=False))

    assert grammar is not None
    schema = json.loads(grammar.text)
    assert (schema["type"], schema["minItems"], schema["maxItems"]) == ("array", 1, 1)
    assert schema["items"]["anyOf"][0]["properties"]["name"] == {"const": "weather"}


def test_auto_and_none_demand_nothing() -> None:
    assert tool_grammar(asked()) is None
    assert tool_grammar(asked(tool_choice="none")) is None


def test_a_demanded_answer_that_is_cut_short_has_no_calls() -> None:
    assert demanded_calls('[{"name": "weather", "argu') == []
    assert demanded_calls('[{"name": "weather", "arguments": {"a": 1}}]') == [
        Call(name="weather", arguments='{"a": 1}')
    ]
