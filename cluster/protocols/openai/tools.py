"""Functions that a model may call: how they get into the prompt and out of the text.

Where the model's chat template knows tools it writes them itself; elsewhere they are told in the
form of NousResearch's Hermes models, `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, which
most open models have seen. Models whose template knows tools but not that mark write plain JSON.
A call that is demanded (`required`, or a named one) is held to the function's schema while it is
generated, so its arguments always fit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.generation import Grammar
from cluster.protocols.openai.requests import ChatRequest, NamedTool, Tool

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
MAX_CALLS = 8
"""Calls of one answer that must call; a small model would otherwise fill its context with them."""
MAX_TOLD = 128
"""Calls that are told of one answer that may call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`arguments` is JSON as text."""

    name: str
    arguments: str


def tool_grammar(asked: ChatRequest) -> Grammar | None:
    """What the text must be when a call is demanded: the named function's arguments, or a list."""
    tools = asked.tools or []
    choice = asked.tool_choice
    if isinstance(choice, NamedTool):
        named = next(tool for tool in tools if tool.function.name == choice.function.name)
        return Grammar(kind="json_schema", text=json.dumps(_parameters(named)), param="tools")
    if choice != "required":
        return None
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.function.name},
                "arguments": _parameters(tool),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    most = 1 if asked.parallel_tool_calls is False else MAX_CALLS
    schema = {"type": "array", "items": {"anyOf": calls}, "minItems": 1, "maxItems": most}
    return Grammar(kind="json_schema", text=json.dumps(schema), param="tools")


def _parameters(tool: Tool) -> dict[str, Any]:
    return tool.function.parameters or {"type": "object", "additionalProperties": False}


def tool_dicts(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """As chat templates and prompts show them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.function.name,
                "description": tool.function.description or "",
                "parameters": _parameters(tool),
            },
        }
        for tool in tools
    ]


def tool_prompt(tools: Sequence[Tool]) -> str:
    """The system text that tells a model of its functions (Hermes' wording)."""
    shown = "\n".join(json.dumps(each) for each in tool_dicts(tools))
    return (
        "You may call one or more functions to assist with the user query.\n"
        f"<tools>\n{shown}\n</tools>\n"
        "For each function call, return a JSON object with function name and arguments within "
        f'{OPEN}{CLOSE} tags:\n{OPEN}{{"name": <function-name>, "arguments": <args-json-object>}}'
        f"{CLOSE}"
    )


def called(text: str, arguments: str, name: str) -> str:
    """A call that the model made earlier, as it would have written it."""
    call = {"name": name, "arguments": arguments_of(arguments)}
    return f"{text}{OPEN}{json.dumps(call)}{CLOSE}"


def arguments_of(text: str) -> Any:
    """A call's arguments as values; the text itself where it is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def demanded_calls(text: str) -> list[Call]:
    """The calls of a `required` answer; none when it was cut short."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [Call(name=each["name"], arguments=json.dumps(each["arguments"])) for each in found]


class ToolText:
    """Splits generated text into what is said and the calls in it, piece by piece."""

    def __init__(self, names: Sequence[str], *, most: int = MAX_TOLD) -> None:
        """`most`: calls that are told; the model's further ones are dropped."""
        self._names = frozenset(names)
        self._left = most
        self._held = ""
        self._is_inside = False

    def add(self, piece: str, *, is_last: bool = False) -> tuple[str, list[Call]]:
        """The text and the calls that are certain now. What looks like a call of an unknown
        function, or is no JSON, is text."""
        self._held += piece
        said = ""
        calls: list[Call] = []
        while True:
            mark = CLOSE if self._is_inside else OPEN
            before, found, after = self._held.partition(mark)
            if not found:
                break
            if not self._is_inside:
                said += before
            else:
                call = self._parse(before)
                if call is None:
                    said += OPEN + before + CLOSE
                elif self._left:
                    self._left -= 1
                    calls.append(call)
            self._is_inside = not self._is_inside
            self._held = after
        if is_last:
            said += (OPEN if self._is_inside else "") + self._held
            self._held = ""
        elif not self._is_inside:
            keep = _overlap(self._held, OPEN)
            cut = len(self._held) - keep
            said, self._held = said + self._held[:cut], self._held[cut:]
        return said, calls

    def _parse(self, text: str) -> Call | None:
        try:
            return _call_of(json.loads(text), self._names)
        except (ValueError, RecursionError):
            return None


class PlainToolText:
    """The same where calls are the whole text: JSON objects, in a list or one after the other, as
    models of the Llama 3 and Mistral families write them (their marks are special tokens, which are
    no text)."""

    def __init__(self, names: Sequence[str], *, most: int = MAX_TOLD) -> None:
        self._names = frozenset(names)
        self._most = most
        self._held = ""
        self._is_text = False

    def add(self, piece: str, *, is_last: bool = False) -> tuple[str, list[Call]]:
        """See `ToolText.add`. What begins like JSON is held back to its end."""
        if self._is_text:
            return piece, []
        self._held += piece
        begins = self._held.lstrip()[:1]
        if begins and begins not in "{[":
            self._is_text = True
        elif not is_last:
            return "", []
        held, self._held = self._held, ""
        calls = None if self._is_text else self._parse(held)
        return (held, []) if calls is None else ("", calls[: self._most])

    def _parse(self, text: str) -> list[Call] | None:
        """None when any of it is no call of a known function."""
        decoder = json.JSONDecoder()
        found: list[Any] = []
        text = text.strip()
        try:
            while text:
                value, end = decoder.raw_decode(text)
                found += value if isinstance(value, list) else [value]
                text = text[end:].lstrip(" \r\n\t;,")
        except (ValueError, RecursionError):
            return None
        calls = [_call_of(each, self._names) for each in found]
        known = [each for each in calls if each is not None]
        return known if known and len(known) == len(calls) else None


def _call_of(found: Any, names: frozenset[str]) -> Call | None:
    name = found.get("name") if isinstance(found, dict) else None
    if not isinstance(name, str) or name not in names:
        return None
    arguments = found.get("arguments", found.get("parameters", {}))
    shown = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return Call(name=name, arguments=shown)


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0
